//! The binary, as those who use it meet it.

mod browser_world;
mod page;
