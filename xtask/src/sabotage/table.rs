//! Which promise each sabotage breaks, and which tests have to notice.

/// A sabotage, the promise that it breaks, and whoever has to notice: all of them, the quickest
/// first.
#[derive(Debug)]
pub(super) struct Row {
    /// Its name in `onceward::sabotage`.
    pub(super) name: &'static str,
    /// The promise, as it stands while nothing is broken.
    pub(super) promise: &'static str,
    /// The tests.
    pub(super) catchers: &'static [Catcher],
}

/// A test that has to fail, and what it says then: a test that is red for another reason has
/// noticed nothing.
#[derive(Debug)]
pub(super) struct Catcher {
    /// The source of the suite that it is in.
    pub(super) suite: &'static str,
    /// Its name there.
    pub(super) test: &'static str,
    /// A part of what it says.
    pub(super) says: &'static str,
}

/// A test of the library, next to the code.
const fn unit(test: &'static str, says: &'static str) -> Catcher {
    Catcher { suite: "crates/onceward/src/lib.rs", test, says }
}

/// A test of the library's behaviour.
const fn library(test: &'static str, says: &'static str) -> Catcher {
    Catcher { suite: "crates/onceward/tests/it/main.rs", test, says }
}

/// A test of the real binary.
const fn server(test: &'static str, says: &'static str) -> Catcher {
    Catcher { suite: "crates/onceward-server/tests/it/main.rs", test, says }
}

/// Simulated worlds with faults at every door.
const fn simulated() -> Catcher {
    Catcher {
        suite: "crates/onceward-sim/tests/worlds.rs",
        test: "the_first_worlds_keep_every_promise",
        says: "broke a promise",
    }
}

/// The real binary, killed again and again under load between callers and an auditor that know
/// nothing of how promises are kept.
const fn killed(says: &'static str) -> Catcher {
    server("crash_kill::killed_under_load_it_loses_nothing_and_does_nothing_twice", says)
}

/// Every sabotage there is.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "weaker-sync",
        promise: "a commit is on stable storage before anybody is told of it",
        catchers: &[
            server(ORDER, "never durable"),
            server(
                "nodes_server_away::what_was_told_is_there_though_the_server_is_killed_at_once",
                "was told",
            ),
        ],
    },
    Row {
        name: "sync-error-swallowed",
        promise: "after a sync that failed nothing is acknowledged",
        catchers: &[unit(
            "store::sqlite::journal::tests::a_sync_that_fails_is_an_error_and_not_a_full_disk",
            "a sync that failed",
        )],
    },
    Row {
        name: "answer-before-commit",
        promise: "no byte goes upstream before the call is on stable storage",
        catchers: &[server(ORDER, ", durable at ")],
    },
    Row {
        name: "checksum-ignored",
        promise: "what was torn or changed on disk is never taken for what was written",
        catchers: &[
            unit(
                "store::sqlite::journal::tests::a_torn_last_frame_is_dropped_at_every_length",
                "torn at",
            ),
            unit(
                "store::sqlite::journal::tests::a_body_that_was_changed_is_not_returned",
                "Damaged",
            ),
        ],
    },
    Row {
        name: "index-ahead",
        promise: "what the index does not have yet is in the journal that is read after a crash",
        catchers: &[unit(
            "store::sqlite::writer::tests::what_is_young_is_there_after_a_crash_though_the_index_was_kept",
            "what was acknowledged",
        )],
    },
    Row {
        name: "segment-dropped",
        promise: "a segment of the journal stays for as long as a body in it is needed",
        catchers: &[library(
            "ledger::a_segment_stays_for_as_long_as_a_body_in_it_is_needed",
            "a request that is still to be sent",
        )],
    },
    Row {
        name: "key-taken-back",
        promise: "a key that has gone to a successor never goes back",
        catchers: &[library(SQLITE, "it does not take its key back")],
    },
    Row {
        name: "backup-unguarded",
        promise: "no segment goes while a backup copies it",
        catchers: &[unit(
            "store::sqlite::writer::tests::no_segment_goes_while_a_backup_copies_it",
            "the backup needs both",
        )],
    },
    Row {
        name: "lock-not-taken",
        promise: "one process at a time has the ledger",
        catchers: &[library("ledger::a_second_process_is_refused", "two writers")],
    },
    Row {
        name: "select-then-insert",
        promise: "of calls that race for a key one is remembered, by the write itself",
        catchers: &[
            library(MEMORY, "Fresh("),
            library(SQLITE, "Fresh("),
            library(POSTGRES, "right: (1, 63)"),
            simulated(),
            killed("violations"),
        ],
    },
    Row {
        name: "no-fence",
        promise: "a write with an old fence changes nothing",
        catchers: &[
            library(MEMORY, "one write of a fence"),
            library(SQLITE, "one write of a fence"),
            library(POSTGRES, "one write of a fence"),
            simulated(),
        ],
    },
    Row {
        name: "lease-by-own-clock",
        promise: "one clock decides whose right has lapsed, the server's",
        catchers: &[library(
            "postgres_nodes::a_right_lasts_by_the_servers_clock_whatever_the_nodes_think",
            "it has just beaten",
        )],
    },
    Row {
        name: "lost-reply-is-failure",
        promise: "what became of a commit whose reply was lost is looked up before anybody is told",
        catchers: &[server(
            "nodes_lost_reply::a_lost_reply_to_each_kind_of_write_changes_nothing_for_the_caller",
            "left: 503",
        )],
    },
    Row {
        name: "living-judged",
        promise: "what a session that beats has in hand stays its own",
        catchers: &[library(MEMORY, "right: []"), simulated()],
    },
    Row {
        name: "sweep-unguarded",
        promise: "what has not ended is never forgotten",
        catchers: &[library(MEMORY, "left: (6, 0)"), library(SQLITE, "left: (6, 0)"), simulated()],
    },
    Row {
        name: "credential-unsealed",
        promise: "a caller's credentials are sealed in the ledger",
        catchers: &[
            unit(
                "wire::tests::a_request_comes_back_whole_and_its_credentials_only_where_they_are_asked_for",
                "canary",
            ),
            library("lifecycle::no_credential_is_in_any_file_of_the_ledger", "segment-00000001"),
        ],
    },
    Row {
        name: "body-unsealed",
        promise: "a request and an answer are sealed in the ledger where their route says so",
        catchers: &[
            unit(
                "wire::tests::an_answer_is_sealed_where_bodies_are_and_comes_back_as_itself_alone",
                "left: true",
            ),
            library(
                "sealed::no_request_answer_or_credential_is_anywhere_in_the_ledger",
                "segment-00000001",
            ),
            server(
                "sealed::no_file_of_a_ledger_or_its_backup_holds_a_body_a_header_or_a_secret",
                "onceward-data",
            ),
        ],
    },
    Row {
        name: "seal-unbound",
        promise: "what is sealed opens as what it was sealed for, and as nothing else",
        catchers: &[
            unit(
                "seal::tests::what_was_moved_cut_or_changed_does_not_open",
                "of another operation",
            ),
            library(
                "sealed::a_ciphertext_in_another_place_is_damage_and_never_somebody_elses_answer",
                "not a refusal",
            ),
        ],
    },
    Row {
        name: "master-key-late",
        promise: "a master key is on disk before it wraps a key of the ledger",
        catchers: &[server(
            "rekey::nothing_is_wrapped_with_a_master_key_that_is_not_on_disk",
            "is not the key of this ledger",
        )],
    },
    Row {
        name: "key-file-open",
        promise: "the ledger's key is its owner's alone",
        catchers: &[server(
            "access::what_opens_the_ledger_is_its_owners_alone",
            "is open to others",
        )],
    },
    Row {
        name: "page-unredacted",
        promise: "what a route redacts is seen by no person",
        catchers: &[server(
            "canaries::no_secret_is_seen_at_any_place_that_shows_something",
            "is seen at",
        )],
    },
    Row {
        name: "erased-body-left",
        promise: "what is erased is in no file of the ledger",
        catchers: &[server(
            "erase::what_is_erased_is_in_no_file_and_a_late_duplicate_is_refused",
            "while the gateway runs",
        )],
    },
    Row {
        name: "note-unlinked",
        promise: "a note names the one before it, so that none can be changed or left out unnoticed",
        catchers: &[
            library(
                "audit::what_is_changed_in_the_audit_behind_its_back_has_its_place_named",
                "does not follow",
            ),
            server(
                "audit::the_audit_is_verified_exported_and_recomputed_by_its_bytes_alone",
                "previous",
            ),
        ],
    },
    Row {
        name: "key-shared-by-principals",
        promise: "a key opens nothing to another caller",
        catchers: &[library(SCOPES, "KeyMismatch")],
    },
    Row {
        name: "key-shared-by-tenants",
        promise: "a key opens nothing to another tenant",
        catchers: &[
            library(SCOPES, "KeyMismatch"),
            server(
                "tenants::one_key_of_two_tenants_is_two_operations_and_a_route_that_is_not_theirs_is_not_there",
                "left == right",
            ),
        ],
    },
    Row {
        name: "tenant-unfiltered",
        promise: "what is one tenant's is shown to no other, by no endpoint",
        catchers: &[server(
            "tenants::what_a_guard_a_source_and_an_outbox_take_is_their_tenants",
            "by-guard",
        )],
    },
    Row {
        name: "tenant-limit-ignored",
        promise: "a tenant has no more than it may have, after a restart neither",
        catchers: &[server(
            "tenants_limits::as_many_keys_are_remembered_as_a_tenant_may_have_after_a_restart_too",
            "left == right",
        )],
    },
    Row {
        name: "key-shared-by-routes",
        promise: "a key opens nothing on another route",
        catchers: &[library(SCOPES, "KeyMismatch")],
    },
    Row {
        name: "claim-believed",
        promise: "a caller of a guard is who it proves to be, or who a proxy that is believed says",
        catchers: &[server("guard::what_a_stranger_claims_to_be_is_not_believed", "of another")],
    },
    Row {
        name: "reauthorize-skipped",
        promise: "what a guard remembers is told once the upstream had its word",
        catchers: &[server(
            "guard::what_is_remembered_is_told_only_after_the_upstream_had_its_word",
            "it was asked",
        )],
    },
    Row {
        name: "mismatch-ignored",
        promise: "another request with the same key is refused, and nothing is sent",
        catchers: &[
            library(
                "mismatch::another_request_is_refused_where_the_first_is_in_doubt_or_dead",
                "OutcomeUnknown",
            ),
            simulated(),
            killed("another request was taken for it"),
        ],
    },
    Row {
        name: "expired-early",
        promise: "an outcome is replayed for its whole window, which begins when it is known",
        catchers: &[library(
            "lifecycle::after_its_window_a_key_is_refused_and_after_its_tombstone_it_is_new",
            "KeyExpired",
        )],
    },
    Row {
        name: "waiter-executes",
        promise: "whoever finds the first call under way waits for it and sends nothing",
        catchers: &[
            library(
                "duplicates::two_hundred_calls_at_once_are_sent_once_and_get_one_answer",
                "who joins sends nothing",
            ),
            simulated(),
        ],
    },
    Row {
        name: "answer-before-settle",
        promise: "no answer leaves before it is on stable storage",
        catchers: &[server(ORDER, ": told at "), simulated()],
    },
    Row {
        name: "attempt-not-remembered",
        promise: "an attempt is in the ledger before its first byte leaves, a later one too",
        catchers: &[
            library(
                "in_doubt::a_later_attempt_under_way_when_the_process_is_killed_is_in_doubt",
                "what is sent is remembered",
            ),
            server(ORDER, "left after 1 of 2 syncs"),
            simulated(),
        ],
    },
    Row {
        name: "hang-up-cancels",
        promise: "a caller that hangs up changes nothing",
        catchers: &[library(
            "lifecycle::a_held_caller_that_hangs_up_while_a_retry_is_waited_for_changes_nothing",
            "never: k is done",
        )],
    },
    Row {
        name: "orphan-resent",
        promise: "what was under way when the process ended is not sent again where a second arrival is a second effect",
        catchers: &[
            library(
                "in_doubt::an_attempt_under_way_when_the_process_is_killed_is_in_doubt_and_never_sent_again",
                "not a refusal: Answered",
            ),
            simulated(),
            killed("a second arrival on a non-idempotent route"),
        ],
    },
    Row {
        name: "doubt-resent",
        promise: "what may have been executed is not sent again where a second arrival is a second effect",
        catchers: &[
            library(
                "in_doubt::an_unanswered_call_is_sent_once_and_its_caller_told_that_nobody_knows",
                "not a refusal: Answered",
            ),
            simulated(),
            killed("a second arrival on a non-idempotent route"),
        ],
    },
    Row {
        name: "unanswered-is-unsent",
        promise: "only what provably was not sent counts as unsent",
        catchers: &[
            library(
                "upstream_endings::a_request_that_was_read_and_dropped_is_unanswered",
                "left: (Unsent",
            ),
            killed("a second arrival on a non-idempotent route"),
        ],
    },
    Row {
        name: "stale-key-sent",
        promise: "no attempt begins once the upstream may have forgotten the key",
        catchers: &[library(
            "in_doubt::past_the_upstreams_memory_of_a_key_a_retry_that_comes_due_late_is_not_sent",
            "left: \"done\"",
        )],
    },
    Row {
        name: "fresh-upstream-key",
        promise: "all attempts of an operation carry one upstream key",
        catchers: &[
            library(
                "retries::a_keyed_call_is_tried_again_with_one_key_and_the_same_bytes",
                "left: (\"k1\"",
            ),
            simulated(),
            killed("arrived under another key than its operation's"),
        ],
    },
    Row {
        name: "pass-resent",
        promise: "a call without a record is sent again only where nothing was sent",
        catchers: &[library(
            "retries::a_call_without_a_record_is_sent_again_only_where_nothing_was_sent",
            "whether it is sent again",
        )],
    },
    Row {
        name: "retry-after-ignored",
        promise: "an upstream that says when to come back is not asked earlier",
        catchers: &[library("retries::retry_after_is_honoured_in_full", "it waits ")],
    },
    Row {
        name: "no-jitter",
        promise: "what failed together does not come back together",
        catchers: &[library(
            "retries::what_failed_together_does_not_come_back_together",
            "60 of 60 are due at one instant",
        )],
    },
    Row {
        name: "wake-only",
        promise: "accepted work is found when it is due, whether or not somebody says so",
        catchers: &[library("lifecycle::what_is_due_is_sent_though_nobody_says_so", "is done")],
    },
    Row {
        name: "breaker-stuck",
        promise: "an upstream that fails is left alone",
        catchers: &[library(
            "gates::an_open_breaker_refuses_who_waits_and_keeps_what_was_accepted",
            "right: (\"open\"",
        )],
    },
    Row {
        name: "probe-unguarded",
        promise: "a probe is nothing that could be doubled",
        catchers: &[library(
            "gates::a_probe_is_never_something_that_could_be_doubled",
            "right: [\"HEAD\"",
        )],
    },
    Row {
        name: "hold-of-one",
        promise: "what an upstream asks for holds for all of its work",
        catchers: &[library(
            "gates::what_an_upstream_asks_for_holds_for_all_of_its_work",
            "not a refusal",
        )],
    },
    Row {
        name: "rate-ignored",
        promise: "a recovery never exceeds the rate of its route",
        catchers: &[library(
            "gates::a_recovery_with_a_large_backlog_never_exceeds_the_rate_of_its_route",
            "within a second",
        )],
    },
    Row {
        name: "no-ramp",
        promise: "a backlog is let go slowly",
        catchers: &[library(
            "gates::a_backlog_is_let_go_slowly_once_the_upstream_answers_again",
            "all but two wait still",
        )],
    },
    Row {
        name: "slots-unshared",
        promise: "one who floods leaves room for another",
        catchers: &[library(
            "gates::one_who_floods_leaves_room_for_another",
            "one, six of the flood, and five",
        )],
    },
    Row {
        name: "older-sent",
        promise: "of those about one subject none is sent after a newer one",
        catchers: &[library(
            "order::an_older_one_than_one_that_was_done_is_not_sent",
            "not an answer of the upstream's",
        )],
    },
    Row {
        name: "turn-not-taken-back",
        promise: "of those about one subject one at a time has the turn",
        catchers: &[library("order::a_turn_that_was_not_used_goes_to_an_older_one", "is_first")],
    },
    Row {
        name: "pause-forgotten",
        promise: "a pause outlives the process",
        catchers: &[library(
            "gates::a_paused_route_keeps_what_it_accepts_until_it_is_resumed",
            "a pause outlives the process",
        )],
    },
    Row {
        name: "headers-in-a-map",
        promise: "a replay has every header line of the first answer, repeats too",
        catchers: &[library(
            "replay_bytes::repeated_headers_binary_bodies_and_trailers_come_back_as_they_were",
            "repeats stay apart",
        )],
    },
    Row {
        name: "set-cookie-replayed",
        promise: "a session is never replayed",
        catchers: &[library(
            "duplicates::two_hundred_calls_at_once_are_sent_once_and_get_one_answer",
            "a session is never replayed",
        )],
    },
    Row {
        name: "only-2xx-stored",
        promise: "a final refusal is the outcome, and is not sent again",
        catchers: &[library(
            "replay_bytes::a_final_refusal_is_replayed_and_not_sent_again",
            "left: Dead(Refused)",
        )],
    },
    Row {
        name: "resend-on-reset",
        promise: "one attempt sends one request",
        catchers: &[
            library(
                "upstream_endings::a_request_that_was_read_and_dropped_is_unanswered",
                "sent once",
            ),
            killed("arrived as attempt 1 of 1"),
        ],
    },
    Row {
        name: "redirect-followed",
        promise: "a redirect is the answer and is never followed",
        catchers: &[library("upstream_endings::a_redirect_is_the_answer", "left: Ok((200")],
    },
    Row {
        name: "address-unchecked",
        promise: "a caller's URL leads to no private address",
        catchers: &[
            library(
                "upstream_egress::an_ipv4_address_is_judged_the_same_in_every_spelling",
                "Ok(())",
            ),
            library(
                "upstream_egress::a_caller_does_not_reach_a_private_address_however_it_is_named",
                "private: (200",
            ),
        ],
    },
    Row {
        name: "name-unchecked",
        promise: "a caller's name leads to no private address",
        catchers: &[library(
            "upstream_egress::a_caller_does_not_reach_a_private_address_however_it_is_named",
            "private: (200",
        )],
    },
    Row {
        name: "own-listener-open",
        promise: "a caller's URL leads to no listener of ours",
        catchers: &[server(
            "egress::no_caller_reaches_a_listener_of_ours_through_us",
            "right: (403, \"egress-refused\")",
        )],
    },
    Row {
        name: "circle-unended",
        promise: "a request that goes in a circle ends",
        catchers: &[server("egress::a_circle_of_gateways_ends_after_five_of_them", "right: (508,")],
    },
    Row {
        name: "step-early",
        promise: "no step of a saga is sent before those before it are done",
        catchers: &[
            library(
                "sagas::steps_go_one_after_the_other_and_each_takes_what_those_before_it_made",
                "never: the saga is done",
            ),
            simulated(),
        ],
    },
    Row {
        name: "not-done-undone",
        promise: "of a saga only what was done is undone",
        catchers: &[
            library(
                "sagas::a_step_whose_route_calls_its_effect_that_of_another_is_not_sent",
                "left: [Undone, Undone]",
            ),
            simulated(),
        ],
    },
    Row {
        name: "form-unchecked",
        promise: "in a session only forms of its own pages change anything",
        catchers: &[server(
            "session::a_session_does_what_its_key_may_and_only_by_forms_of_its_own_pages",
            "left: 303",
        )],
    },
    Row {
        name: "token-unverified",
        promise: "nobody logs in by what the identity provider has not signed",
        catchers: &[server(
            "oidc::what_the_provider_has_not_signed_for_this_login_lets_nobody_in",
            "left: 303",
        )],
    },
    Row {
        name: "fanned-out-early",
        promise: "an event is done with once every delivery of it is on disk",
        catchers: &[library(FAN_OUT, "never: ")],
    },
    Row {
        name: "delivery-anew",
        promise: "a fan-out that goes on meets the deliveries that are there",
        catchers: &[library(FAN_OUT, "all have all")],
    },
    Row {
        name: "dot-unsent",
        promise: "a mail whose end was not answered is never sent again by itself",
        catchers: &[
            server(
                "mail::what_breaks_off_before_the_last_dot_is_sent_again_and_what_breaks_off_after_it_is_in_doubt",
                "doubt-0",
            ),
            server(
                "mail::of_mails_under_500_faults_none_is_doubled_and_none_lost",
                "none is doubled",
            ),
        ],
    },
    Row {
        name: "recipients-forgotten",
        promise: "who has a mail does not get it again",
        catchers: &[server(
            "mail::a_mail_for_several_is_told_for_each_and_nobody_gets_it_twice",
            "right: [[\"ada@example.com\"]",
        )],
    },
    Row {
        name: "recipients-shown",
        promise: "whom a mail is for is told to those alone who may see what was sent",
        catchers: &[server(
            "mail_known::whom_a_mail_is_for_is_told_to_those_alone_who_may_see_what_was_sent",
            "told to a reader",
        )],
    },
    Row {
        name: "unbounded-body",
        promise: "no body is kept beyond its limit",
        catchers: &[
            library(
                "lifecycle::a_body_that_is_too_large_is_refused_without_a_record",
                "not a refusal: Answered",
            ),
            library(
                "replay_bytes::a_large_answer_is_passed_on_whole_and_only_its_fact_is_kept",
                "right: TooLarge",
            ),
            server("limits::a_body_over_its_limit_is_refused_and_nothing_is_sent", "left: 201"),
        ],
    },
];

const FAN_OUT: &str =
    "events::a_process_that_dies_in_a_fan_out_goes_on_where_it_was_and_doubles_nothing";
const ORDER: &str = "crash_points::nothing_leaves_before_the_journal_is_durable";
const MEMORY: &str = "ledger::memory_keeps_the_contract";
const SQLITE: &str = "ledger::sqlite_keeps_the_contract";
const POSTGRES: &str = "ledger::postgres_keeps_the_contract";
const SCOPES: &str = "mismatch::another_tenant_principal_or_route_with_the_same_key_is_unrelated";
