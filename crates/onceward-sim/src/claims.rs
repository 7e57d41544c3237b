//! What the auditor knows of claims: who is at one, how often it was done, which fences were given,
//! and what everybody was told.

use std::collections::BTreeMap;

use onceward::ClaimKey;
use onceward::core::key::ScopeKind;
use onceward::core::operation::{Fence, Operation, State};
use onceward::core::policy::Effects;

/// Everything that is known of claims.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Effects of each, by its operation.
    effects: BTreeMap<String, u64>,
    /// What everybody was told who asked for the outcome of one.
    told: BTreeMap<String, Option<u64>>,
    /// Workers who are at a key, or may be.
    engaged: BTreeMap<(String, String), i64>,
    /// The last fence that a key was begun with.
    fences: BTreeMap<(String, String), u64>,
}

pub(crate) fn is_claim(operation: &Operation) -> bool {
    operation.scope.kind == ScopeKind::Claim
}

fn place(claim: &Operation) -> (String, String) {
    (claim.scope.name.clone(), claim.key.to_string())
}

/// The arrows of the life of a claim, written down once more, apart from the core.
pub(crate) fn may_follow(before: &Operation, after: &Operation) -> bool {
    let is_harmless = after.effects != Effects::NonIdempotent;
    match (before.state.name(), after.state.name()) {
        // Renewed; or its lease was over, and another began it.
        ("delivering", "delivering") => {
            is_harmless || before.attempts.len() == after.attempts.len()
        }
        ("delivering", "in_doubt") => !is_harmless,
        ("delivering", to) => to != "pending",
        // By evidence, or a person.
        ("in_doubt", to) => to == "done" || to == "dead",
        // Begun again; or the late word of who had it last, where nobody had it since.
        ("dead", to) => to == "delivering" || (to == "done" && is_harmless),
        // A person may say that the key is to be dropped.
        ("done", to) => to == "done",
        _ => false,
    }
}

impl Claims {
    pub(crate) fn engaged(&mut self, which: &ClaimKey, change: i64) {
        let place = (which.scope.clone(), which.key.to_string());
        *self.engaged.entry(place).or_default() += change;
    }

    /// A claim was written; tells what is wrong with that.
    pub(crate) fn written(
        &mut self,
        before: Option<&Operation>,
        after: &Operation,
    ) -> Option<String> {
        let last = |claim: &Operation| claim.attempts.last().map(|attempt| attempt.by.0);
        let given = last(after).filter(|given| before.and_then(last) != Some(*given))?;
        let earlier = self.fences.insert(place(after), given);
        let is_greater = earlier.is_none_or(|earlier| earlier < given);
        (!is_greater).then(|| format!("{}: fence {given} after {earlier:?}", after.id))
    }

    /// A worker does what it has in hand; tells the outcome, and what is wrong with that.
    pub(crate) fn lands(&mut self, claim: &Operation, fence: Fence) -> (String, Option<String>) {
        let effects = self.effects.entry(claim.id.to_string()).or_default();
        *effects += 1;
        let is_double = *effects > 1 && claim.effects == Effects::NonIdempotent;
        let wrong = is_double.then(|| format!("{}: claimed and done {effects} times", claim.id));
        (format!("{} under {}, effect {effects}", claim.id, fence.0), wrong)
    }

    /// Somebody was told how it ended; tells what is wrong with that.
    pub(crate) fn told(&mut self, claim: &Operation, outcome: Option<u64>) -> Option<String> {
        let id = claim.id.to_string();
        let first = *self.told.entry(id.clone()).or_insert(outcome);
        (first != outcome).then(|| format!("{id}: two outcomes of one claim"))
    }

    /// Whether a claim in doubt was done, where nobody is at it any more.
    pub(crate) fn truth(&self, claim: &Operation) -> Option<bool> {
        let is_free = self.engaged.get(&place(claim)).is_none_or(|engaged| *engaged == 0);
        let done = self.effects.get(&claim.id.to_string()).is_some_and(|effects| *effects > 0);
        is_free.then_some(done)
    }

    /// What is wrong with how a claim ended.
    pub(crate) fn reckon(&self, claim: &Operation) -> Option<String> {
        let id = claim.id.to_string();
        let is_at_rest = !matches!(claim.state, State::Pending { .. } | State::Delivering);
        if !is_at_rest {
            return Some(format!("{id}: a claim never came to rest: {:?}", claim.state));
        }
        let done = self.effects.contains_key(&id);
        let is_empty = claim.state == State::Done && !done;
        is_empty.then(|| format!("{id}: a claim is done, and nobody did it"))
    }
}
