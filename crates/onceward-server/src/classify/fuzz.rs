//! A fuzz target: any text is a document whose draft is a configuration, or it is refused.

use onceward_fuzz::Fuzz;

use super::Classified;
use crate::config::Config;

const WORDS: &[&str] = &[
    "openapi: 3.1.0\n",
    "{\"swagger\": \"2.0\", \"host\": \"a.example\"}",
    "info: {title: A}\n",
    "servers: [{url: \"https://{r}.example\"}]\n",
    "paths:\n  /a/{b}:\n    post:\n",
    "      parameters: [{name: Idempotency-Key, in: header, required: true}]\n",
    "      operationId: createPayment\n",
    "    $ref: \"#/paths/~1a\"\n",
    "idempotency_key",
    "${X}",
    "&a ",
    "*a",
    "\"",
    "'",
    "\n",
    "    ",
    "[[routes.x]]",
    "webhooks: {a: {}}\n",
];

#[test]
fn any_document_drafts_a_configuration_that_is_read_or_is_refused() {
    Fuzz::new("openapi", 3_000, WORDS).run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return (0, String::new()) };
        let classified = match Classified::read(text, None, None) {
            Ok(classified) => classified,
            Err(why) => {
                assert!(!why.is_empty());
                let kind = why.split([':', '`', '(']).next().unwrap_or_default();
                return (1, kind.chars().filter(|letter| !letter.is_ascii_digit()).collect());
            }
        };
        let draft = classified.draft();
        let config = Config::of_text(&draft).unwrap_or_else(|error| panic!("{error}\n{draft}"));
        assert_eq!(config.warnings(), Vec::<String>::new(), "{draft}");
        let table = classified.table();
        let operations = table["operations"].as_array().map_or(0, Vec::len);
        let rules: usize = config.routes.values().map(|route| route.rules.len()).sum();
        (2, format!("{} {}", operations.min(9), rules.min(9)))
    });
}
