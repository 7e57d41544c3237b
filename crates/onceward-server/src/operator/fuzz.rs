//! A fuzz target: any query of a list is answered or refused, and its cursor leads on.

use axum::extract::Query as UrlQuery;
use http::Uri;
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::store::{Page, Store as _};
use onceward_fuzz::Fuzz;

use super::handler::LIMIT_MAX;
use super::{Filter, cursor};

const WORDS: &[&str] = &[
    "?",
    "&",
    "=",
    "state=",
    "route=",
    "key=",
    "label=",
    "text=",
    "cursor=",
    "limit=",
    "pending",
    "dead_letter",
    "in_doubt",
    "op_01kb2n9f5nep3b8m6wq6r9t2vx",
    "op_7zzzzzzzzzzzzzzzzzzzzzzzzz",
    "op_00000000000000000000000000",
    "%25",
    "%00",
    "%ff",
    "+",
    "'--",
    "*",
    "%",
    "_",
    "1000",
    "1001",
    "0",
    "-1",
];

#[test]
fn any_query_of_a_list_is_answered_or_refused_and_its_cursor_leads_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let store =
        SqliteStore::open(&folder.path().join("l.db"), &SqliteOptions { segment_bytes: 1 << 20 })
            .expect("a ledger");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    Fuzz::new("list", 1_500, WORDS).bytes_max(1024).run(|input| {
        let text = String::from_utf8_lossy(input);
        let Ok(uri) = format!("/v1/operations?{text}").parse::<Uri>() else { return (0, 0) };
        let Ok(UrlQuery(filter)) = UrlQuery::<Filter>::try_from_uri(&uri) else { return (1, 0) };
        let query = match filter.query() {
            Ok(query) => query,
            Err(problem) => {
                assert_eq!(problem.code, "request-invalid");
                return (2, problem.detail.len());
            }
        };
        assert!((1..=LIMIT_MAX).contains(&query.limit));
        if let Some(place) = query.before {
            let page = Page { operations: Vec::new(), next: Some(place) };
            let on = Filter { cursor: cursor(&page), ..Filter::default() };
            assert_eq!(on.query().expect("our own cursor").before, Some(place));
        }
        let kind = query.standing.len();
        let found = runtime.block_on(store.list(query)).expect("a list of a sound ledger");
        assert!(found.operations.is_empty() && found.next.is_none());
        (3, kind)
    });
}
