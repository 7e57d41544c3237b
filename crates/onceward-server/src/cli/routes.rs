//! `routes`: what the gateway is configured to send to.

use super::client::Client;
use super::ls::print_array;
use super::output::{Table, each, is_terminal, text};
use crate::exit::Exit;

pub(super) async fn routes(client: &Client, json: bool) -> Result<(), Exit> {
    let page = client.get("/v1/routes").await?;
    let routes = each(&page, "/data");
    if json {
        return print_array(routes);
    }
    let mut table = Table::new(&[
        "NAME", "UPSTREAM", "EFFECTS", "MODE", "WINDOW", "RULES", "AT ONCE", "HELD BY",
    ]);
    for route in routes {
        let effects = text(route, "/effects");
        table.push(vec![
            text(route, "/name"),
            text(route, "/upstream"),
            if effects == "-" { "by method".to_owned() } else { effects },
            text(route, "/mode"),
            text(route, "/window"),
            text(route, "/rules"),
            text(route, "/concurrency_max"),
            text(route, "/gate/held_by"),
        ]);
    }
    table.print(is_terminal())
}
