//! The contract as a map of keys: what each call and each act of a person comes to. It knows nothing
//! of how the gateway works.

/// Attempts of a run, as the routes below say.
const HELD_MAX: usize = 2;
const ACCEPTED_MAX: usize = 3;

/// What somebody does next, to one of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Call(usize),
    CallAsync(usize),
    CallLater(usize),
    /// The same key with another body.
    Other(usize),
    Cancel(usize),
    ResolveDone(usize),
    ResolveAnswered(usize),
    ResolveNotSent(usize),
    Redeliver(usize),
    ForgetRefuse(usize),
    ForgetNew(usize),
    Restart,
}

/// Where an operation rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rest {
    Later,
    Done(Outcome),
    InDoubt,
    /// With the outcome where there is a final one.
    Dead(&'static str, Option<Outcome>),
}

impl Rest {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Later => "pending",
            Self::Done(_) => "done",
            Self::InDoubt => "in_doubt",
            Self::Dead(..) => "dead",
        }
    }
}

/// What duplicates get: a status and a body, or the word that it is not retained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Answer(u16, String),
    NotRetained,
}

/// What the contract says of one key.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) id: String,
    pub(super) is_other: bool,
    pub(super) rest: Rest,
    pub(super) attempts: usize,
    pub(super) forgotten: Option<bool>,
}

/// What a caller is to get.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) status: u16,
    /// A problem's code, or nothing where an answer is passed on.
    pub(super) code: &'static str,
    pub(super) body: Option<String>,
    pub(super) replayed: bool,
}

impl Told {
    pub(super) fn problem(status: u16, code: &'static str) -> Self {
        Self { status, code, body: None, replayed: false }
    }

    pub(super) fn answer(outcome: &Outcome, replayed: bool) -> Self {
        match outcome {
            Outcome::Answer(status, body) => {
                Self { status: *status, code: "", body: Some(body.clone()), replayed }
            }
            Outcome::NotRetained => Self::problem(409, "response-not-retained"),
        }
    }

    pub(super) fn accepted() -> Self {
        Self { status: 202, code: "", body: None, replayed: false }
    }
}

/// A key's request, the same each time.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) route: &'static str,
    pub(super) key: String,
    pub(super) script: Vec<&'static str>,
}

impl Asked {
    pub(super) fn path(&self) -> String {
        format!("/to/{}/{}", self.route, self.script.join(","))
    }

    pub(super) fn body(&self, is_other: bool) -> String {
        format!("{{\"key\":\"{}\",\"other\":{is_other}}}", self.key)
    }
}

/// The body with which the upstream answers an attempt.
pub(super) fn answered(operation: &str, attempt: usize) -> String {
    format!("{operation}/{attempt}")
}

impl Model {
    /// Runs its attempts by the script, as the contract says; returns what a waiting caller gets.
    pub(super) fn run(&mut self, asked: &Asked, is_held: bool) -> Told {
        let limit = if is_held { HELD_MAX } else { ACCEPTED_MAX };
        let mut in_run = 0;
        loop {
            self.attempts += 1;
            in_run += 1;
            let deed = asked.script[(self.attempts - 1).min(asked.script.len() - 1)];
            let body = answered(&self.id, self.attempts);
            let told = match deed {
                "drop" => Told::problem(504, "no-answer"),
                status => {
                    let status = status.parse().expect("a status");
                    Told { status, code: "", body: Some(body.clone()), replayed: false }
                }
            };
            let may_go_on = in_run < limit;
            match deed {
                "201" => self.rest = Rest::Done(Outcome::Answer(201, body)),
                "404" if is_held => self.rest = Rest::Done(Outcome::Answer(404, body)),
                "404" => self.rest = Rest::Dead("refused", Some(Outcome::Answer(404, body))),
                "401" if self.may_have_worked_before(asked) => {
                    self.rest = Rest::Dead("exhausted", None);
                }
                "401" => self.rest = Rest::Dead("refused", None),
                "503" | "drop" if asked.route == "model-once" => {
                    self.rest = Rest::InDoubt;
                    if deed == "drop" {
                        return Told::problem(504, "outcome-unknown");
                    }
                }
                _ if may_go_on => continue,
                _ => self.rest = Rest::Dead("exhausted", None),
            }
            return told;
        }
    }

    /// Whether an attempt before the last may have been executed. Where a second one would be a
    /// second effect, none was made but by a person who said that the first was not.
    fn may_have_worked_before(&self, asked: &Asked) -> bool {
        let deed = |attempt: usize| asked.script[attempt.min(asked.script.len() - 1)];
        let is_unclear = |attempt| matches!(deed(attempt), "503" | "drop");
        asked.route != "model-once" && (0..self.attempts - 1).any(is_unclear)
    }

    /// What a call with this key gets where it is known; nothing where the key is free again.
    pub(super) fn duplicate(
        &mut self,
        asked: &Asked,
        is_other: bool,
        is_held: bool,
    ) -> Option<Told> {
        match self.forgotten {
            Some(true) => return None,
            Some(false) => return Some(Told::problem(410, "key-invalidated")),
            None => {}
        }
        if is_other != self.is_other {
            return Some(Told::problem(409, "key-mismatch"));
        }
        Some(match self.rest.clone() {
            Rest::Later if is_held => Told::problem(409, "in-progress"),
            Rest::Later => Told::accepted(),
            Rest::Done(outcome) | Rest::Dead(_, Some(outcome)) => Told::answer(&outcome, true),
            Rest::InDoubt => Told::problem(409, "outcome-unknown"),
            Rest::Dead("cancelled", None) => Told::problem(410, "cancelled"),
            Rest::Dead(_, None) => {
                let told = self.run(asked, is_held);
                if is_held { told } else { Told::accepted() }
            }
        })
    }

    /// Whether a person may do this now, and what becomes of it.
    pub(super) fn act(&mut self, step: Step, asked: &Asked) -> bool {
        let dead = matches!(self.rest, Rest::Dead(..));
        let may = match step {
            Step::Cancel(_) => self.rest == Rest::Later,
            Step::ResolveDone(_) | Step::ResolveAnswered(_) | Step::ResolveNotSent(_) => {
                self.rest == Rest::InDoubt
            }
            Step::Redeliver(_) => dead,
            _ => dead || matches!(self.rest, Rest::Done(_)),
        };
        if !may {
            return false;
        }
        match step {
            Step::Cancel(_) => self.rest = Rest::Dead("cancelled", None),
            Step::ResolveDone(_) => self.rest = Rest::Done(Outcome::NotRetained),
            Step::ResolveAnswered(_) => {
                self.rest = Rest::Done(Outcome::Answer(200, "found".to_owned()));
            }
            Step::ResolveNotSent(_) | Step::Redeliver(_) => drop(self.run(asked, false)),
            Step::ForgetRefuse(_) => self.forgotten = Some(false),
            _ => self.forgotten = Some(true),
        }
        true
    }
}
