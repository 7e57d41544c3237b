//! The real gateway beside a model of the contract: whatever callers and people do in whatever
//! order, every answer, state and attempt is what the model says.

mod contract;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use onceward_fuzz::figures::Figures;
use onceward_proof::chance::Chance;
use onceward_proof::figures::number;
use onceward_proof::line::{Line, Message};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::crash_world::{Gateway, World};
use contract::{Asked, Model, Rest, Step, Told, answered};

/// Keys of a sequence; every other one is on the route that is not idempotent.
const KEYS: usize = 4;

const STEPS: usize = 20;

/// Seeds whose sequences once differed: always run.
const FOUND: [u64; 1] = [20];

/// How many smaller sequences are tried once one has failed.
const SHRINK_MAX: usize = 60;

const ROUTE: &str = "wait = \"2s\"
breaker = false
budget = false
held = { attempts_max = 2, base = \"2ms\", floor = \"1ms\", cap = \"4ms\" }
retry = { attempts_max = 3, horizon = \"1h\", base = \"2ms\", floor = \"1ms\", cap = \"4ms\" }
";

/// What the upstream does to an attempt.
const DEEDS: [&str; 6] = ["201", "404", "401", "503", "429", "drop"];

fn step(chance: &mut Chance) -> Step {
    let key = chance.below(KEYS as u64) as usize;
    match chance.below(200) {
        0..70 => Step::Call(key),
        70..95 => Step::CallAsync(key),
        95..105 => Step::CallLater(key),
        105..125 => Step::Other(key),
        125..135 => Step::Cancel(key),
        135..145 => Step::ResolveDone(key),
        145..155 => Step::ResolveAnswered(key),
        155..165 => Step::ResolveNotSent(key),
        165..180 => Step::Redeliver(key),
        180..188 => Step::ForgetRefuse(key),
        188..197 => Step::ForgetNew(key),
        _ => Step::Restart,
    }
}

/// An upstream that does what the path says to the attempt whose number comes with it.
#[derive(Debug, Clone, Default)]
struct Script(Arc<Mutex<HashMap<String, usize>>>);

impl Script {
    async fn start(&self) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let script = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = script.clone();
                tokio::spawn(async move {
                    // A connection that ends badly ends alone.
                    let _ = script.serve(Line::new(stream)).await;
                });
            }
        });
        address
    }

    async fn serve(&self, mut line: Line) -> std::io::Result<()> {
        while let Some(message) = line.read().await? {
            let text = |name: &str| message.header(name).unwrap_or_default().to_owned();
            let operation = text("onceward-operation");
            let attempt: usize = text("onceward-attempt").parse().unwrap_or(1);
            self.note(&operation);
            let path = message.start.split(' ').nth(1).unwrap_or_default();
            let script: Vec<&str> = path.trim_start_matches('/').split(',').collect();
            let deed = script[(attempt - 1).min(script.len() - 1)];
            if deed == "drop" {
                return Ok(());
            }
            let body = answered(&operation, attempt);
            let head = format!("HTTP/1.1 {deed} So\r\ncontent-length: {}\r\n\r\n", body.len());
            line.write(format!("{head}{body}").as_bytes()).await?;
        }
        Ok(())
    }

    fn note(&self, operation: &str) {
        let mut arrived = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *arrived.entry(operation.to_owned()).or_default() += 1;
    }

    fn arrived(&self, operation: &str) -> usize {
        let arrived = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.get(operation).copied().unwrap_or_default()
    }
}

/// The gateway, its upstream, and what is known of every key.
struct Beside {
    world: World,
    gateway: Gateway,
    script: Script,
    restarts: u64,
}

/// Why a sequence failed: at which step, and how.
struct Differs {
    at: usize,
    step: Step,
    why: String,
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}, {:?}: {}", self.at, self.step, self.why)
    }
}

impl Beside {
    async fn start() -> Self {
        let script = Script::default();
        let upstream = script.start().await;
        let route = |name: &str, effects: &str| {
            format!(
                "[routes.{name}]\nupstream = \"http://{upstream}\"\neffects = \"{effects}\"\n{ROUTE}"
            )
        };
        let routes = [route("model-keyed", "keyed"), route("model-once", "non-idempotent")];
        let world = World::with(1, &routes.concat()).await;
        let gateway = world.start().await;
        Self { world, gateway, script, restarts: 0 }
    }

    /// Runs the steps; `name` sets their keys apart from those of others.
    async fn run(&mut self, name: &str, asked: &[Asked], steps: &[Step]) -> Result<(), Differs> {
        let asked: Vec<Asked> = asked
            .iter()
            .map(|asked| Asked { key: format!("{name}-{}", asked.key), ..asked.clone() })
            .collect();
        let mut models: Vec<Option<Model>> = vec![None; KEYS];
        for (at, step) in steps.iter().copied().enumerate() {
            let differs = |why| Differs { at, step, why };
            self.take(step, &asked, &mut models).await.map_err(differs)?;
        }
        Ok(())
    }

    async fn take(
        &mut self,
        step: Step,
        asked: &[Asked],
        models: &mut [Option<Model>],
    ) -> Result<(), String> {
        let key = match step {
            Step::Restart => {
                self.gateway.kill();
                self.gateway = self.world.start().await;
                self.restarts += 1;
                for (model, asked) in models.iter().zip(asked) {
                    self.compare(asked, model.as_ref()).await?;
                }
                return Ok(());
            }
            Step::Call(key) | Step::CallAsync(key) | Step::CallLater(key) | Step::Other(key) => {
                self.call(step, &asked[key], &mut models[key]).await?;
                key
            }
            Step::Cancel(key)
            | Step::ResolveDone(key)
            | Step::ResolveAnswered(key)
            | Step::ResolveNotSent(key)
            | Step::Redeliver(key)
            | Step::ForgetRefuse(key)
            | Step::ForgetNew(key) => {
                self.act(step, &asked[key], &mut models[key]).await?;
                key
            }
        };
        self.compare(&asked[key], models[key].as_ref()).await
    }

    async fn call(
        &self,
        step: Step,
        asked: &Asked,
        known: &mut Option<Model>,
    ) -> Result<(), String> {
        let is_other = matches!(step, Step::Other(_));
        let is_held = matches!(step, Step::Call(_) | Step::Other(_));
        let prefer = if is_held { "wait=0" } else { "respond-async" };
        let mut headers = vec![
            ("idempotency-key", asked.key.as_str()),
            ("content-type", "application/json"),
            ("prefer", prefer),
        ];
        if matches!(step, Step::CallLater(_)) {
            headers.push(("onceward-delay", "1h"));
        }
        let body = asked.body(is_other);
        let mut line = self.gateway.line().await;
        let answer = line.ask("POST", &asked.path(), &headers, body.as_bytes()).await;
        let answer = answer.map_err(|error| format!("no answer: {error}"))?;
        let operation = answer.header("onceward-operation").unwrap_or_default().to_owned();
        let told = known.as_mut().and_then(|known| known.duplicate(asked, is_other, is_held));
        let expected = if let Some(told) = told {
            let id = known.as_ref().map(|known| known.id.clone()).unwrap_or_default();
            if operation != id {
                return Err(format!("it is {operation}, and not {id}"));
            }
            told
        } else {
            let (id, rest) = (operation, Rest::Later);
            let mut fresh = Model { id, is_other, rest, attempts: 0, forgotten: None };
            let told = match step {
                Step::CallLater(_) => Told::accepted(),
                _ if is_held => fresh.run(asked, true),
                _ => {
                    fresh.run(asked, false);
                    Told::accepted()
                }
            };
            *known = Some(fresh);
            told
        };
        let found = told_of(&answer, expected.body.is_some());
        if found != expected {
            return Err(format!("told {found:?}, and the contract says {expected:?}"));
        }
        Ok(())
    }

    async fn act(
        &self,
        step: Step,
        asked: &Asked,
        known: &mut Option<Model>,
    ) -> Result<(), String> {
        let key = format!("/v1/keys/{}/{}", asked.route, asked.key);
        let id = known.as_ref().map_or("op_00000000000000000000000000", |known| &known.id);
        let of = |verb: &str| ("POST", format!("/v1/operations/{id}/{verb}"));
        let why = "the model says so";
        let (resolve, forget) = (
            |word| json!({"as": word, "reason": why}),
            |then| json!({"then": then, "reason": why}),
        );
        let ((method, path), document) = match step {
            Step::Cancel(_) => (of("cancel"), json!({"reason": why})),
            Step::Redeliver(_) => (of("redeliver"), json!({"reason": why})),
            Step::ResolveDone(_) => (of("resolve"), resolve("done")),
            Step::ResolveAnswered(_) => (
                of("resolve"),
                json!({"as": "done", "reason": why, "status": 200, "body": "found"}),
            ),
            Step::ResolveNotSent(_) => (of("resolve"), resolve("not-sent")),
            Step::ForgetRefuse(_) => (("DELETE", key), forget("refuse")),
            _ => (("DELETE", key), forget("new")),
        };
        let headers = [("content-type", "application/json")];
        let mut line = self.gateway.line().await;
        let answer = line.ask(method, &path, &headers, document.to_string().as_bytes()).await;
        let answer = answer.map_err(|error| format!("no answer: {error}"))?;
        let may = known.as_mut().map(|known| known.act(step, asked));
        let expected = may.map_or(404, |may| if may { 200 } else { 409 });
        if answer.status() == expected {
            Ok(())
        } else {
            Err(format!(
                "told {}, and the contract says {expected}: {}",
                answer.status(),
                answer.json()
            ))
        }
    }

    /// Whether the ledger and the upstream say of a key what the model says.
    async fn compare(&self, asked: &Asked, model: Option<&Model>) -> Result<(), String> {
        let Some(model) = model else { return Ok(()) };
        let found = if model.rest == Rest::Later {
            self.gateway.get(&format!("/v1/keys/{}/{}", asked.route, asked.key)).await
        } else {
            self.gateway.rested(asked.route, &asked.key).await
        };
        let attempts = found["attempts"].as_array().map_or(0, Vec::len);
        let reason = match model.rest {
            Rest::Dead(reason, _) => json!(reason),
            _ => Value::Null,
        };
        let same = found["id"] == model.id
            && found["state"] == model.rest.name()
            && found["reason"] == reason
            && attempts == model.attempts
            && self.script.arrived(&model.id) == model.attempts;
        if same { Ok(()) } else { Err(format!("it is {found}, and the contract says {model:?}")) }
    }
}

/// What an answer says, its body only where one is passed on.
fn told_of(answer: &Message, has_body: bool) -> Told {
    let code = answer.code();
    let known = [
        "no-answer",
        "outcome-unknown",
        "response-not-retained",
        "key-invalidated",
        "key-mismatch",
        "in-progress",
        "cancelled",
    ];
    Told {
        status: answer.status(),
        code: known.into_iter().find(|known| *known == code).unwrap_or_default(),
        body: has_body.then(|| String::from_utf8_lossy(&answer.body).into_owned()),
        replayed: answer.header("idempotent-replayed") == Some("true"),
    }
}

fn sequence(chance: &mut Chance) -> (Vec<Asked>, Vec<Step>) {
    let asked = (0..KEYS)
        .map(|key| Asked {
            route: if key % 2 == 0 { "model-keyed" } else { "model-once" },
            key: key.to_string(),
            script: (0..=chance.below(4)).map(|_| DEEDS[chance.below(6) as usize]).collect(),
        })
        .collect();
    (asked, (0..STEPS).map(|_| step(chance)).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_done_in_whatever_order_the_gateway_does_as_the_contract_says() {
    let (began, seed) = (Instant::now(), number("TEST_SEED", 1));
    let sequences = number("TEST_SEQUENCES", 40);
    let mut beside = Beside::start().await;
    let seeds = FOUND.into_iter().chain((0..sequences).map(|n| seed.wrapping_add(n)));
    for (n, seed) in seeds.enumerate() {
        let (asked, steps) = sequence(&mut Chance(seed));
        if let Err(differs) = beside.run(&format!("s{n}"), &asked, &steps).await {
            let (steps, differs) = shrink(&mut beside, &asked, steps, differs).await;
            Figures::new("model", seed, began).write(&[("sequences", n as u64 + 1)], 1);
            panic!(
                "{differs}\nscripts: {:?}\nsteps: {steps:?}\nagain: TEST_SEED={seed} TEST_SEQUENCES=1 cargo test -p onceward-server --test it model::",
                asked.iter().map(|asked| asked.script.join(",")).collect::<Vec<_>>(),
            );
        }
    }
    let counted = [
        ("sequences", sequences + FOUND.len() as u64),
        ("steps", (sequences + FOUND.len() as u64) * STEPS as u64),
        ("restarts", beside.restarts),
    ];
    Figures::new("model", seed, began).write(&counted, 0);
}

/// A shorter sequence that fails too, where there is one.
async fn shrink(
    beside: &mut Beside,
    asked: &[Asked],
    mut steps: Vec<Step>,
    mut differs: Differs,
) -> (Vec<Step>, Differs) {
    steps.truncate(differs.at + 1);
    let mut tries = 0;
    let mut at = 0;
    while at < steps.len() && tries < SHRINK_MAX {
        tries += 1;
        let mut without = steps.clone();
        without.remove(at);
        match beside.run(&format!("again{tries}"), asked, &without).await {
            Err(found) => (steps, differs) = (without, found),
            Ok(()) => at += 1,
        }
    }
    (steps, differs)
}
