//! Promises that can be broken on purpose, one at a time, so that the tests can be shown to notice.
//!
//! Only builds with the feature `sabotage` can break anything; in every other build
//! [`Sabotage::is_on`] is a constant `false` and nothing of it is left. Where a promise is kept
//! stands the one line that breaks it; `cargo xtask sabotage` shows which test sees it.

use std::sync::Arc;

use onceward_core::operation::Operation;

use crate::store::{Store, Write};
use crate::upstream::{Answer, Dispatch, Failure};

/// Defines the promises with their names, so that none is left out of either.
macro_rules! sabotages {
    ($($(#[$doc:meta])* $sabotage:ident = $name:literal,)*) => {
        /// A promise to break.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Sabotage {
            $($(#[$doc])* $sabotage,)*
        }

        impl Sabotage {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$sabotage,)*];

            /// Its name, as `TEST_SABOTAGE` and the commands take it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$sabotage => $name,)*
                }
            }
        }
    };
}

sabotages! {
    // The ledger.
    /// A frame of the journal, or the server's log, is written and not waited for.
    WeakerSync = "weaker-sync",
    /// A sync that failed counts as done.
    SyncErrorSwallowed = "sync-error-swallowed",
    /// A write is answered before it is durable.
    AnswerBeforeCommit = "answer-before-commit",
    /// What is read back is not compared with its checksum.
    ChecksumIgnored = "checksum-ignored",
    /// The index says that it has what lives in memory only.
    IndexAhead = "index-ahead",
    /// A segment goes although bodies in it are in use.
    SegmentDropped = "segment-dropped",
    /// A key that has gone to a successor goes back with a late write.
    KeyTakenBack = "key-taken-back",
    /// A segment goes while a backup copies it.
    BackupUnguarded = "backup-unguarded",
    /// The ledger is opened although another process has it open.
    LockNotTaken = "lock-not-taken",
    /// A key is looked up, and then written whether or not it is there by now.
    SelectThenInsert = "select-then-insert",
    /// A write is accepted whatever its fence.
    NoFence = "no-fence",
    /// A right lasts by the clock of the node that has it.
    LeaseByOwnClock = "lease-by-own-clock",
    /// A commit whose reply was lost counts as one that failed.
    LostReplyIsFailure = "lost-reply-is-failure",
    /// What a session that beats has in hand is taken from it.
    LivingJudged = "living-judged",
    /// The sweep forgets by age, what is unfinished too.
    SweepUnguarded = "sweep-unguarded",
    /// Credentials are kept in the clear.
    CredentialUnsealed = "credential-unsealed",
    /// A request or an answer is written as it came, whatever the route says.
    BodyUnsealed = "body-unsealed",
    /// What is sealed is not bound to what it belongs to.
    SealUnbound = "seal-unbound",
    /// The ledger's keys are wrapped by a master key before that is on disk.
    MasterKeyLate = "master-key-late",
    /// Everybody on the machine can read the ledger's key.
    KeyFileOpen = "key-file-open",
    /// What a route redacts of an answer is shown to people.
    PageUnredacted = "page-unredacted",
    /// What an erased operation had stays in the ledger.
    ErasedBodyLeft = "erased-body-left",
    /// A note of what somebody did does not name the one before it.
    NoteUnlinked = "note-unlinked",

    // Keys and what counts as the same request.
    /// Two callers with one key share an operation.
    SharedByPrincipals = "key-shared-by-principals",
    /// Two tenants with one key share an operation.
    SharedByTenants = "key-shared-by-tenants",
    /// What is read for people is read for all tenants.
    TenantUnfiltered = "tenant-unfiltered",
    /// Two routes with one key share an operation.
    SharedByRoutes = "key-shared-by-routes",
    /// A caller of a guard is whoever it says it is.
    ClaimBelieved = "claim-believed",
    /// A guard tells what is remembered before the upstream had its word.
    ReauthorizeSkipped = "reauthorize-skipped",
    /// Another request with the same key gets the first one's answer.
    MismatchIgnored = "mismatch-ignored",
    /// The window counts from the first call and not from the outcome.
    ExpiredEarly = "expired-early",
    /// A duplicate that finds the first call under way makes a call of its own.
    WaiterExecutes = "waiter-executes",

    // Attempts.
    /// The caller is answered while the outcome is still being written.
    AnswerBeforeSettle = "answer-before-settle",
    /// A further attempt is made without a note that it starts.
    AttemptNotRemembered = "attempt-not-remembered",
    /// A caller that hangs up takes its call along.
    HangUpCancels = "hang-up-cancels",
    /// What a process that ended had under way is sent again, whatever its effects.
    OrphanResent = "orphan-resent",
    /// What is in doubt is sent again, whatever its effects.
    DoubtResent = "doubt-resent",
    /// No answer is taken for a proof that nothing was sent.
    UnansweredIsUnsent = "unanswered-is-unsent",
    /// A key is sent after the upstream may have forgotten it.
    StaleKeySent = "stale-key-sent",
    /// Each attempt has another upstream key.
    FreshUpstreamKey = "fresh-upstream-key",
    /// A call without a record is sent again though it may have been executed.
    PassResent = "pass-resent",
    /// `Retry-After` is not heeded.
    RetryAfterIgnored = "retry-after-ignored",
    /// All that failed together is tried again together.
    NoJitter = "no-jitter",
    /// Accepted work is looked for only when somebody says so.
    WakeOnly = "wake-only",
    /// A step of a saga is begun while the one before it is under way.
    StepEarly = "step-early",
    /// What was not done of a saga is undone.
    NotDoneUndone = "not-done-undone",

    // Before an upstream.
    /// What fails is called on and on.
    BreakerStuck = "breaker-stuck",
    /// Whatever waits may be a probe, whatever its effects.
    ProbeUnguarded = "probe-unguarded",
    /// What an upstream asked of one call holds for that alone.
    HoldOfOne = "hold-of-one",
    /// A rate is counted and not kept.
    RateIgnored = "rate-ignored",
    /// All that waited for an upstream is let go at once.
    NoRamp = "no-ramp",
    /// What a tenant has is counted and not kept within its limits.
    TenantLimitIgnored = "tenant-limit-ignored",
    /// One who floods takes every slot.
    SlotsUnshared = "slots-unshared",
    /// A pause ends with the process.
    PauseForgotten = "pause-forgotten",
    /// A newer one that was done keeps no older one from being sent.
    OlderSent = "older-sent",
    /// The turn of one that has not started is given to another without a write.
    TurnNotTakenBack = "turn-not-taken-back",

    // Events and mails.
    /// An event counts as fanned out before its deliveries are born.
    FannedOutEarly = "fanned-out-early",
    /// Whoever goes on with a fan-out gives each delivery a key of its own.
    DeliveryAnew = "delivery-anew",
    /// A mail whose end was not answered is taken for one that was not sent.
    DotUnsent = "dot-unsent",
    /// Who has a mail already is forgotten.
    RecipientsForgotten = "recipients-forgotten",
    /// Whom a mail is for is told to whoever may read.
    RecipientsShown = "recipients-shown",

    // Outcomes.
    /// Of headers with one name the last is kept.
    HeadersInAMap = "headers-in-a-map",
    /// All headers are replayed, sessions too.
    SetCookieReplayed = "set-cookie-replayed",
    /// A final answer that is no success is not kept: the same key runs again.
    OnlySuccessStored = "only-2xx-stored",

    // The network.
    /// The client sends again by itself where a connection broke.
    ResendOnReset = "resend-on-reset",
    /// A redirect is followed.
    RedirectFollowed = "redirect-followed",
    /// An address that stands in a caller's URL itself is not judged.
    AddressUnchecked = "address-unchecked",
    /// Where a caller's name leads is not judged.
    NameUnchecked = "name-unchecked",
    /// A caller's URL may lead to a listener of ours.
    OwnListenerOpen = "own-listener-open",
    /// Nobody counts through how many gateways a request goes.
    CircleUnended = "circle-unended",
    /// A form is taken of whatever page it is.
    FormUnchecked = "form-unchecked",
    /// What an identity provider says is believed whoever has signed it.
    TokenUnverified = "token-unverified",
    /// A body is taken however large it is.
    UnboundedBody = "unbounded-body",
}

impl Sabotage {
    /// Whether this promise is to be broken now.
    #[cfg(not(feature = "sabotage"))]
    #[inline]
    pub const fn is_on(self) -> bool {
        // Named here so that every build knows all of them.
        let _ = self;
        false
    }

    /// Whether this promise is to be broken now.
    #[cfg(feature = "sabotage")]
    pub fn is_on(self) -> bool {
        CHOSEN.with_borrow(|chosen| *chosen == Some(self)) || from_environment() == Some(self)
    }

    /// Breaks this promise on the present thread from now on, or none.
    #[cfg(feature = "sabotage")]
    pub fn choose(sabotage: Option<Self>) {
        CHOSEN.with_borrow_mut(|chosen| *chosen = sabotage);
    }
}

#[cfg(feature = "sabotage")]
thread_local! {
    static CHOSEN: std::cell::RefCell<Option<Sabotage>> = const { std::cell::RefCell::new(None) };
}

/// What the environment names, read once: it is for the whole process.
#[cfg(feature = "sabotage")]
fn from_environment() -> Option<Sabotage> {
    use std::sync::OnceLock;
    static NAMED: OnceLock<Option<Sabotage>> = OnceLock::new();
    *NAMED.get_or_init(|| {
        let name = std::env::var("TEST_SABOTAGE").ok()?;
        let named = Sabotage::ALL.iter().copied().find(|sabotage| sabotage.name() == name);
        // Else whoever mistyped it would believe that nobody noticed.
        assert!(named.is_some(), "TEST_SABOTAGE: there is no {name}");
        named
    })
}

/// Commits without waiting for it: the operation as it will be.
pub(crate) fn commit_later(store: &Arc<dyn Store>, write: Write) -> Operation {
    let (store, operation) = (Arc::clone(store), write.operation.clone());
    // Whoever was told does not hear how it ended: that is the point.
    tokio::spawn(async move { drop(store.commit(write).await) });
    operation
}

/// What a client that follows redirects sends next.
pub(crate) fn followed(dispatch: &Dispatch, ended: &Result<Answer, Failure>) -> Option<Dispatch> {
    let answer = ended.as_ref().ok().filter(|answer| (300..400).contains(&answer.status))?;
    let to = dispatch.target.base.join(answer.headers.text("location")?).ok()?;
    let mut next = dispatch.clone();
    to.path().clone_into(&mut Arc::make_mut(&mut next.request).target);
    let base = &mut Arc::make_mut(&mut next.target).base;
    *base = to;
    base.set_path("");
    Some(next)
}
