//! From the release before to this one, under load: with the ledger of one process, and node by node
//! with a shared one. `cargo xtask test` builds the release before and names its binary in
//! `TEST_PREVIOUS`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use onceward_proof::chance::Chance;
use onceward_proof::check::Log;
use onceward_proof::figures::{Figures, seed, tell};

use crate::crash_load::{Load, settle_and_check, until_acknowledged};
use crate::crash_world::{Gateway, World, clean};
use crate::nodes_load::PATIENT;
use crate::nodes_server::Database;
use crate::nodes_world::Cluster;
use crate::world::BINARY;

const CALLERS: u64 = 8;

/// The release before; nothing where it could not be built, which is told.
fn previous() -> Option<PathBuf> {
    let named = std::env::var_os("TEST_PREVIOUS").map(PathBuf::from);
    if named.is_none() {
        tell("SKIPPED: TEST_PREVIOUS names no binary of the release before");
    }
    named
}

fn serve(world: &World, binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.args(["serve", "--config"]).arg(world.config());
    clean(&mut command);
    command
}

/// Callers who ask one process until it was acknowledged so much more to them.
async fn ask(gateway: &Gateway, log: &Arc<Log>, chance: &mut Chance, name: &str) -> Load {
    let before = log.acknowledged_count();
    let load = Load::start(gateway.address, log, chance, name, CALLERS);
    until_acknowledged(log, before + 100).await;
    load
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_of_the_release_before_that_was_killed_under_load_goes_on_with_this_one() {
    let Some(previous) = previous() else { return };
    let seed = seed();
    let (world, log, mut chance) = (World::new(seed).await, Arc::default(), Chance(seed));
    let mut before = Gateway::start(serve(&world, &previous)).await.expect("a start");
    let load = ask(&before, &log, &mut chance, "before").await;
    before.kill();
    load.end().await;
    let after = world.start().await;
    ask(&after, &log, &mut chance, "after").await.end().await;
    let checked = settle_and_check(&world, after, &log).await;
    let mut told = Figures::of("upgrade", seed);
    told.checked(&checked.figures);
    told.tell(checked.violations.len());
    let figures = checked.expect_kept();
    assert!(figures.acknowledged >= 200 && figures.replayed > 0, "too tame: {figures:?}");
}

/// Two neighbouring releases work side by side, and a node may go back while they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_to_this_release_and_back_and_here_again_node_by_node_under_load() {
    let Some(previous) = previous() else { return };
    let Some(database) = Database::shared() else { return };
    let seed = seed();
    let mut told = Figures::of("nodes-upgrade", seed);
    let mut cluster = Cluster::of(&vec![database.url(); 3], seed, "").await;
    cluster.binary.clone_from(&previous);
    cluster.begin().await;
    let load = cluster.load(CALLERS, PATIENT);
    let this = PathBuf::from(BINARY);
    let way = [(0, &this), (1, &this), (0, &previous), (0, &this), (2, &this)];
    for (node, binary) in way {
        cluster.binary.clone_from(binary);
        cluster.restart(node).await;
        let before = cluster.log.acknowledged_count();
        until_acknowledged(&cluster.log, before + 60).await;
    }
    cluster.judge(load, &mut told).await;
}
