//! `openapi`: the document of the gateway's own API.

use super::output::print_bytes;
use crate::exit::Exit;
use crate::openapi;

pub(super) fn openapi() -> Result<(), Exit> {
    print_bytes(openapi::text().as_bytes())
}
