//! What is kept of a saga beside its key: its definition, how far it came, the values that are still to be
//! taken, and what people did. The store's own shape of it, as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use onceward_core::operation::Operation;
use onceward_core::saga::{
    self, Course, Definition, Leg, Place, Progress, Standing, Step, Template, Variable,
};
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::store::StoreError;

/// What people did is kept of so many deeds; all of it is in the audit.
const DEEDS_MAX: usize = 50;

/// What is kept of a saga.
#[derive(Debug, Clone)]
pub struct Kept {
    /// What it is to do.
    pub definition: Definition,
    /// How far it came.
    pub progress: Progress,
    /// What was taken of answers: by the variables that stand for it.
    pub(crate) values: BTreeMap<String, Value>,
    /// Since when what is at hand may have been begun: since it is at hand, or since it was last seen not to be.
    pub(super) at_since: Option<Timestamp>,
    /// The route that what is at hand waits for: it is not configured.
    pub(super) waits_for: Option<String>,
    /// When its tenant's rate has a turn for what is at hand: it is not begun before.
    pub(super) turn: Option<Timestamp>,
    /// Whether it was paused because its ledger was restored: what it did since the backup is not in it.
    pub(super) is_held: bool,
    /// Why it does not go forward, in words for a person, but for what it waits for.
    pub(super) why: Option<String>,
    /// What people did, oldest first.
    pub deeds: Vec<SagaDeed>,
}

/// What a person did to a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaDeed {
    /// What: the word for it.
    pub deed: String,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// Why.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct Row {
    definition: DefinitionRow,
    progress: ProgressRow,
    values: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_since: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    turn: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    deeds: Vec<(String, i64, String, String)>,
}

#[derive(Serialize, Deserialize)]
struct DefinitionRow {
    steps: Vec<StepRow>,
    input: Value,
    stops: bool,
}

#[derive(Serialize, Deserialize)]
struct StepRow {
    name: String,
    ask: AskRow,
    undo: Option<AskRow>,
    pivot: bool,
}

#[derive(Serialize, Deserialize)]
struct AskRow {
    route: String,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: BodyRow,
    attempts_max: Option<u32>,
    within_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
enum BodyRow {
    Empty,
    Text(String),
    Json(Value),
    Base64(String),
}

#[derive(Serialize, Deserialize)]
struct ProgressRow {
    legs: Vec<String>,
    unwinding: bool,
    /// Step, and whether it is its compensation.
    at: Option<(usize, bool)>,
    retries: u32,
    paused: bool,
    standing: String,
}

fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("a saga cannot be read: {what}"))
}

fn named<T: Copy>(
    all: &[T],
    name: impl Fn(T) -> &'static str,
    word: &str,
) -> Result<T, StoreError> {
    let found = all.iter().copied().find(|one| name(*one) == word);
    found.ok_or_else(|| damaged(format_args!("{word:?} is a word of a later version")))
}

impl Kept {
    /// A saga that has not begun.
    pub(super) fn new(definition: Definition) -> Self {
        let progress = definition.plan().begin();
        Self {
            definition,
            progress,
            values: BTreeMap::new(),
            at_since: None,
            waits_for: None,
            turn: None,
            is_held: false,
            why: None,
            deeds: Vec::new(),
        }
    }

    /// The definition alone: what makes two starts the same.
    pub(super) fn definition_bytes(&self) -> Bytes {
        json!(DefinitionRow::of(&self.definition)).to_string().into()
    }

    /// The bytes of it.
    pub(super) fn bytes(&self) -> Bytes {
        let deed = |deed: &SagaDeed| {
            let SagaDeed { deed, at, who, reason } = deed.clone();
            (deed, at.as_micros(), who, reason)
        };
        let row = Row {
            definition: DefinitionRow::of(&self.definition),
            progress: ProgressRow::of(&self.progress),
            values: self.values.clone(),
            at_since: self.at_since.map(Timestamp::as_micros),
            waits_for: self.waits_for.clone(),
            turn: self.turn.map(Timestamp::as_micros),
            held: self.is_held,
            why: self.why.clone(),
            deeds: self.deeds.iter().map(deed).collect(),
        };
        json!(row).to_string().into()
    }

    /// Reads it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let row: Row = serde_json::from_slice(bytes).map_err(damaged)?;
        let deed = |(deed, at, who, reason)| {
            let at = Timestamp::from_micros(at);
            SagaDeed { deed, at, who, reason }
        };
        Ok(Self {
            definition: row.definition.read()?,
            progress: row.progress.read()?,
            values: row.values,
            at_since: row.at_since.map(Timestamp::from_micros),
            waits_for: row.waits_for,
            turn: row.turn.map(Timestamp::from_micros),
            is_held: row.held,
            why: row.why,
            deeds: row.deeds.into_iter().map(deed).collect(),
        })
    }

    /// Why it does not go forward, in words for a person; with the route that it waits for, where one is missing,
    /// and until when its tenant's rate has it wait.
    pub fn why(&self) -> Option<String> {
        let waits = self.waits_for.as_ref();
        let waits = waits.map(|it| format!("it waits until this route is configured again: {it}"));
        let turn = self.turn.map(Timestamp::rfc3339);
        let turn = turn.map(|at| format!("its tenant's rate has it wait until {at}"));
        let all: Vec<String> = self.why.clone().into_iter().chain(waits).chain(turn).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Adds what a person did.
    pub(super) fn add_deed(&mut self, deed: SagaDeed) {
        self.deeds.push(deed);
        let surplus = self.deeds.len().saturating_sub(DEEDS_MAX);
        self.deeds.drain(..surplus);
    }

    /// What `variable` stands for in the saga `of`.
    pub(super) fn value(&self, of: &Operation, variable: &Variable) -> Option<Value> {
        match variable {
            Variable::Open => Some(json!("{{")),
            Variable::SagaId => Some(json!(of.id.to_string())),
            Variable::SagaKey => Some(json!(of.key.as_str())),
            Variable::Input(pointer) => self.definition.input.pointer(pointer).cloned(),
            Variable::Status(_) | Variable::Header(..) | Variable::Body(..) => {
                self.values.get(&variable.to_string()).cloned()
            }
        }
    }
}

impl DefinitionRow {
    fn of(definition: &Definition) -> Self {
        let step = |step: &Step| StepRow {
            name: step.name.clone(),
            ask: AskRow::of(&step.ask),
            undo: step.undo.as_ref().map(AskRow::of),
            pivot: step.is_pivot,
        };
        Self {
            steps: definition.steps.iter().map(step).collect(),
            input: definition.input.clone(),
            stops: definition.stops,
        }
    }

    fn read(self) -> Result<Definition, StoreError> {
        let step = |row: StepRow| {
            Ok(Step {
                name: row.name,
                ask: row.ask.read()?,
                undo: row.undo.map(AskRow::read).transpose()?,
                is_pivot: row.pivot,
            })
        };
        let steps: Result<_, StoreError> = self.steps.into_iter().map(step).collect();
        Ok(Definition { steps: steps?, input: self.input, stops: self.stops })
    }
}

impl AskRow {
    fn of(ask: &saga::Ask) -> Self {
        let header = |(name, value): &(String, Template)| (name.clone(), value.as_str().to_owned());
        Self {
            route: ask.route.clone(),
            method: ask.method.clone(),
            path: ask.path.as_str().to_owned(),
            headers: ask.headers.iter().map(header).collect(),
            body: match &ask.body {
                saga::Body::Empty => BodyRow::Empty,
                saga::Body::Text(template) => BodyRow::Text(template.as_str().to_owned()),
                saga::Body::Json(document) => BodyRow::Json(document.clone()),
                saga::Body::Bytes(bytes) => BodyRow::Base64(STANDARD.encode(bytes)),
            },
            attempts_max: ask.attempts_max,
            within_ms: ask.within.map(|span| span.as_millis() as u64),
        }
    }

    fn read(self) -> Result<saga::Ask, StoreError> {
        let template = |text: &str| Template::read(text).map_err(damaged);
        let header = |(name, value): (String, String)| Ok((name, template(&value)?));
        let headers: Result<_, StoreError> = self.headers.into_iter().map(header).collect();
        Ok(saga::Ask {
            route: self.route,
            method: self.method,
            path: template(&self.path)?,
            headers: headers?,
            body: match self.body {
                BodyRow::Empty => saga::Body::Empty,
                BodyRow::Text(text) => saga::Body::Text(template(&text)?),
                BodyRow::Json(document) => saga::Body::Json(document),
                BodyRow::Base64(coded) => {
                    saga::Body::Bytes(STANDARD.decode(coded).map_err(damaged)?.into())
                }
            },
            attempts_max: self.attempts_max,
            within: self.within_ms.map(Duration::from_millis),
        })
    }
}

impl ProgressRow {
    fn of(progress: &Progress) -> Self {
        Self {
            legs: progress.legs.iter().map(|leg| leg.name().to_owned()).collect(),
            unwinding: progress.course == Course::Unwinding,
            at: progress.at.map(|place| (place.step, place.undo)),
            retries: progress.retries,
            paused: progress.is_paused,
            standing: progress.standing.name().to_owned(),
        }
    }

    fn read(self) -> Result<Progress, StoreError> {
        let leg = |word: &String| named(&Leg::ALL, Leg::name, word);
        Ok(Progress {
            legs: self.legs.iter().map(leg).collect::<Result<_, _>>()?,
            course: if self.unwinding { Course::Unwinding } else { Course::Forward },
            at: self.at.map(|(step, undo)| Place { step, undo }),
            retries: self.retries,
            is_paused: self.paused,
            standing: named(&Standing::ALL, Standing::name, &self.standing)?,
        })
    }
}
