//! What stands in the bytes of every row that a query wants: a row without it is passed over and not read.
//! A row with it may still be another; reading it tells.

use memchr::memmem::Finder;
use onceward_core::id::OperationId;

use super::version_of_kind;
use crate::store::Query;

/// What rows that a query wants have in common.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    /// In their bytes somewhere; those that the fewest have come first.
    pub(crate) words: Vec<Vec<u8>>,
    /// Their first byte is this at least.
    pub(crate) version: u8,
}

impl Signs {
    /// Those of the rows that `query` wants.
    pub(crate) fn of(query: &Query) -> Self {
        // An id is kept as a number, and a text may be one.
        let text = query.text.as_ref().filter(|text| text.parse::<OperationId>().is_err());
        let named = [&query.key, &query.label, &query.subject].map(Option::as_ref);
        let said = [text, query.error_is.as_ref(), query.error.as_ref()];
        let whose = [&query.principal, &query.route, &query.scope, &query.tenant];
        // Words are kept as they are.
        let bytes = |text: &String| text.as_bytes().to_vec();
        let parent = query.parent.map(|parent| written(&Some(parent.as_u128())));
        // Of several statuses each stands there otherwise.
        let status = query.one_status().map(|status| written(&Some(status)));
        let words = named.into_iter().chain(said).flatten().map(bytes);
        let words = words.chain(parent).chain(status);
        let words = words.chain(whose.map(Option::as_ref).into_iter().flatten().map(bytes));
        Self {
            words: words.filter(|word| !word.is_empty()).collect(),
            version: query.kind.map_or(0, version_of_kind),
        }
    }

    /// Whether there are any.
    pub(crate) fn are_any(&self) -> bool {
        *self != Self::default()
    }

    /// What looks for them in a row.
    pub(crate) fn finders(&self) -> impl Fn(&[u8]) -> bool {
        let words: Vec<_> = self.words.iter().map(Finder::new).collect();
        move |row| {
            row.first().is_some_and(|version| *version >= self.version)
                && words.iter().all(|word| word.find(row).is_some())
        }
    }
}

/// A member as a row has it.
fn written(member: &impl serde::Serialize) -> Vec<u8> {
    // Writing into memory does not fail.
    postcard::to_extend(member, Vec::new()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use onceward_core::key::ScopeKind;
    use onceward_core::operation::Operation;
    use onceward_core::policy::Mode;

    use super::super::fuzz::everywhere;
    use super::super::{KINDS, encode};
    use super::*;
    use crate::store::contract;

    /// An operation wherever one can stand, of each kind and born of another, with a number as its subject.
    fn operations() -> Vec<Operation> {
        let mut all = everywhere().expect("a life");
        for (n, kind) in (1..).zip(KINDS) {
            let mut born = contract::operation(n, "key-2", "other", Mode::Held);
            born.intent_mut().scope.kind = kind;
            born.intent_mut().parent = Some(OperationId::new(n << 40, n));
            born.intent_mut().scope.principal = "ada".into();
            all.push(born);
        }
        all
    }

    /// What is asked for where something like `operation` is looked for, a member at a time.
    fn queries(operation: &Operation) -> Vec<Query> {
        let all = Query { limit: 9, ..Query::default() };
        let text = |text: &str| Some(text.to_owned());
        vec![
            all.clone(),
            Query { key: text(operation.key.as_str()), ..all.clone() },
            Query { label: operation.label.clone(), ..all.clone() },
            Query { text: text(&operation.key.as_str()[2..]), ..all.clone() },
            Query { text: text(&operation.target), ..all.clone() },
            Query { text: text(&operation.id.to_string()), ..all.clone() },
            Query { route: text(&operation.route), ..all.clone() },
            Query { scope: text(&operation.scope.name), ..all.clone() },
            Query { tenant: text(&operation.scope.tenant), ..all.clone() },
            Query { principal: text(&operation.scope.principal), ..all.clone() },
            Query { kind: Some(operation.scope.kind), ..all.clone() },
            Query { parent: operation.parent, ..all.clone() },
            Query { status: operation.last_status().map(|it| it..=it), ..all.clone() },
            Query { status: operation.last_status().map(|it| it..=it + 9), ..all.clone() },
            Query { attempts_min: Some(operation.attempts_made()), ..all.clone() },
            Query { error_is: operation.last_error().map(str::to_owned), ..all.clone() },
            Query { error: operation.last_error().map(|it| it[2..].to_owned()), ..all },
        ]
    }

    #[test]
    fn whatever_a_query_wants_has_its_signs() {
        let operations = operations();
        let mut passed_over = 0;
        for query in operations.iter().flat_map(queries) {
            let signs = Signs::of(&query);
            let has_them = signs.finders();
            for operation in &operations {
                let mut row = Vec::new();
                encode(operation, &mut row);
                assert!(has_them(&row) || !query.wants(operation), "{query:?} of {operation:?}");
                passed_over += usize::from(!has_them(&row));
            }
        }
        assert!(passed_over > 1000, "{passed_over}");
    }

    #[test]
    fn what_nothing_is_asked_of_has_none() {
        assert!(!Signs::of(&Query::default()).are_any());
        assert!(Signs::of(&Query { status: Some(404..=404), ..Query::default() }).are_any());
        assert!(Signs::of(&Query { kind: Some(ScopeKind::Saga), ..Query::default() }).are_any());
    }
}
