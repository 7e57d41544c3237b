//! A database of its own for a test, on the server that `cargo xtask test` starts and names in
//! `TEST_POSTGRES`.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::config::{Config, Host};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The URL of a new database; says so where the environment names no server.
#[expect(clippy::print_stdout, reason = "never silently")]
pub(crate) fn database() -> Option<String> {
    let Ok(server) = std::env::var("TEST_POSTGRES") else {
        println!("skipped: TEST_POSTGRES names no server; `cargo xtask test` starts one");
        return None;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let place = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("gateway_{}_{place}", std::process::id());
    runtime.block_on(async {
        let (client, connection) =
            tokio_postgres::connect(&server, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    });
    let config: Config = server.parse().unwrap();
    let Some(Host::Tcp(host)) = config.get_hosts().first() else { panic!("{server}") };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let password =
        config.get_password().map(|password| format!(":{}", String::from_utf8_lossy(password)));
    let user = config.get_user().unwrap_or("postgres");
    Some(format!("postgres://{user}{}@{host}:{port}/{name}", password.unwrap_or_default()))
}
