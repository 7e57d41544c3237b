//! The project's own commands, so that nobody needs a tool besides cargo.
//!
//! `ci` is what continuous integration runs, and all that it runs: what passes here passes there.

mod axe;
mod book;
mod browser;
mod count;
mod crash;
mod debian;
mod deny;
mod docs;
mod fuzz;
mod package;
mod postgres;
mod previous;
mod proof;
mod sabotage;
mod schemathesis;
mod sdk;
mod sdks;
mod spelling;
mod steps;
mod tidy;
mod tools;

use std::process::ExitCode;

use steps::Steps;

const USAGE: &str = "\
usage: cargo xtask <command>

  test [args]   start or install what the tests need, then run them all, schemathesis
                and the SDKs; arguments go to cargo test, and then those two are not run
  ci            format, lints, docs, tidy, spelling, deny, test, package, sabotage, count: what has to pass before a merge
  fuzz [TARGET …] [--seconds N] [--seed N] [--input FILE]
                inputs that nobody would write, for so long each
  sim [args]    worlds from a seed, with faults at every door: --seed S for one,
                --worlds N, --seconds N or --minutes N for many
  postgres      start a throw-away PostgreSQL server, for tests by hand
  count [--tests] [--set] [--only WAY,…] [--binary FILE] [--keep DIR]
                instructions and allocations for a request, held against bench/budget.toml;
                --tests: of what the tests are built from, against bench/budget-tests.toml;
                --set writes that file
  sabotage [name…]
                break one promise at a time, and show which test notices
  tidy          layering, links, the book's pages, what is made for it, what callers of the API rely on,
                markers, manifests, paths
  crash [--cycles N] [--seed S] [--long] [--only SUITE]
                crash and fault suites on the release binary; figures in target/proof/crash.json
  docs          write the reference pages that are made of the code, of openapi.json and of the alerts,
                and llms.txt, anew: tests and tidy hold them
  book          the documentation as a site, in target/book/site, by mdBook, which is installed
                below the target folder where it is missing
  spelling      misspelt words in all papers, by typos, which is installed below the target folder
  metrics       write the table of docs/metrics.md, which tests hold against the gateway, anew
  schemathesis [--long] [--seed N] [args]
                requests made of the document of the API, right and wrong, against a gateway;
                arguments go to schemathesis
  sdk [python] [typescript]
                our SDKs: lints, types, tests against the gateway, packs
  openapi       write docs/openapi.json, which tests hold against the gateway, anew
  freeze YYYY-MM
                keep docs/openapi.json as what callers of a release rely on, which tidy holds later ones to
  fixture       write a ledger of this release, which later ones have to open
  proof [--long] [--page]
                every long run, and docs/reliability.md made of what they came to
  deny          licences, banned crates, sources, doubled versions
  deb [--binary FILE | --rehearse]
                the Debian package, in target/package; or that of the debug binary,
                twice, compared and held against lintian's rules
  sbom          what is in the binary, as CycloneDX 1.5, in target/package
  reproduce     build the last commit twice, in different folders, and compare";

/// What goes wrong here is told to a person, and never decided upon.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let done = match command.as_str() {
        "test" => steps::test(&rest),
        "ci" => ci(),
        "fuzz" => fuzz::run(&rest),
        "sim" => steps::sim(&rest),
        "postgres" => postgres::run(),
        "sabotage" => sabotage::run(&rest),
        "proof" => proof::run(&rest),
        "tidy" => tidy::run(&steps::root()),
        "crash" => crash::run(&rest),
        "sdk" => sdk::run(&rest),
        "schemathesis" => schemathesis::run(&rest),
        "openapi" => steps::openapi(),
        "metrics" => steps::metrics(),
        "docs" => docs::run(),
        "book" => book::run(),
        "spelling" => spelling::run(),
        "freeze" => tidy::contract::freeze(&rest),
        "fixture" => steps::fixture(),
        "deny" => deny::run(&steps::root()),
        "count" => count::run(&rest),
        "deb" => package::debian_package::run(&rest),
        "sbom" => package::sbom::run(),
        "reproduce" => package::reproduce(),
        "" | "help" | "--help" | "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("error: no such command: {other}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Cheap checks first: who forgot to format should not wait for the tests to hear of it.
fn ci() -> Outcome<()> {
    let root = steps::root();
    let mut steps = Steps::default();
    let done = steps
        .run("fmt", || steps::cargo(&["fmt", "--all", "--check"], &[]))
        .and_then(|()| steps.run("tidy", || tidy::run(&root)))
        .and_then(|()| steps.run("spelling", spelling::run))
        .and_then(|()| steps.run("deny", || deny::run(&root)))
        .and_then(|()| {
            steps.run("clippy", || {
                let args = "clippy --workspace --all-targets --locked -- -D warnings";
                steps::cargo(&args.split(' ').collect::<Vec<_>>(), &[])
            })
        })
        .and_then(|()| {
            steps.run("doc", || {
                let args = "doc --workspace --no-deps --locked";
                let strict = [("RUSTDOCFLAGS", "-D warnings".into())];
                steps::cargo(&args.split(' ').collect::<Vec<_>>(), &strict)
            })
        })
        .and_then(|()| steps.run("test", || steps::test(&[])))
        .and_then(|()| steps.run("package", package::debian_package::rehearse))
        .and_then(|()| steps.run("sabotage", sabotage::after_tests))
        .and_then(|()| steps.run("count", || count::run(&["--tests".to_owned()])));
    steps.print();
    done
}
