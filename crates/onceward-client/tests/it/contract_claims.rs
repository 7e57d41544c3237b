//! Claims: what holds of the gateway holds of its double.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use onceward_client::shapes::ClaimStatus;
use onceward_client::{Advice, Begin, BoxError, Effects, Error, NotDone};
use serde_json::{Value, json};

use crate::world::{fresh, of_both};

async fn sent(_: onceward_client::Held) -> Result<String, BoxError> {
    Ok("sent".to_owned())
}

#[tokio::test]
async fn an_effect_is_run_once_and_all_get_its_outcome() {
    of_both(async |once| {
        let (mails, key, runs) = (once.claims("mails"), fresh("welcome"), Cell::new(0));
        for _ in 0..2 {
            let outcome: Value = mails
                .once(&key, async |held| {
                    runs.set(runs.get() + 1);
                    assert!(held.fence > 0 && held.operation.starts_with("op_") && !held.is_lost());
                    Ok::<_, BoxError>(json!({ "mail": runs.get() }))
                })
                .await
                .unwrap();
            assert_eq!(outcome, json!({ "mail": 1 }));
        }
        assert_eq!(runs.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_effect_is_run_once_when_all_ask_at_the_same_time() {
    of_both(async |once| {
        let (mails, key, runs) = (once.claims("mails"), fresh("welcome"), Cell::new(0));
        let ask = || {
            mails.once(&key, async |_| {
                runs.set(runs.get() + 1);
                tokio::task::yield_now().await;
                Ok::<_, BoxError>(runs.get())
            })
        };
        let (a, b, c): (Result<u32, _>, Result<u32, _>, Result<u32, _>) =
            tokio::join!(ask(), ask(), ask());
        assert_eq!((a.unwrap(), b.unwrap(), c.unwrap(), runs.get()), (1, 1, 1, 1));
    })
    .await;
}

#[tokio::test]
async fn an_effect_that_says_that_nothing_was_done_frees_its_key() {
    of_both(async |once| {
        let (mails, key) = (once.claims("mails"), fresh("welcome"));
        let busy =
            async |_| Err::<String, BoxError>(NotDone::new("the mail server is busy").into());
        let told = mails.once(&key, busy).await.unwrap_err();
        assert!(matches!(&told, Error::NotDone(why) if why.to_string().contains("busy")), "{told}");
        assert_eq!(mails.once(&key, sent).await.unwrap(), "sent");
    })
    .await;
}

#[tokio::test]
async fn an_effect_that_fails_is_in_doubt_and_harmless_ones_run_again() {
    of_both(async |once| {
        let mails = once.claims("mails");
        let fail = async |_| Err::<String, _>(io::Error::other("who knows"));
        let key = fresh("welcome");
        let told = mails.once(&key, fail).await.unwrap_err();
        assert!(matches!(&told, Error::Effect(error) if error.is::<io::Error>()), "{told}");
        let told = mails.once(&key, sent).await.unwrap_err();
        assert!(matches!(told, Error::OutcomeUnknown(_)), "{told}");
        let (harmless, key) = (mails.effects(Effects::Idempotent), fresh("welcome"));
        harmless.once(&key, fail).await.unwrap_err();
        assert_eq!(harmless.once(&key, sent).await.unwrap(), "sent");
    })
    .await;
}

#[tokio::test]
async fn a_claim_in_somebodys_hand_is_busy_and_the_same_begin_again_is_not() {
    of_both(async |once| {
        let (mails, key) = (once.claims("mails").holder("a"), fresh("welcome"));
        let mine = Begin::new().nonce("a");
        let first = mails.begin(&key, &mine).await.unwrap();
        assert_eq!(first.status, ClaimStatus::Acquired);
        assert_eq!(mails.begin(&key, &mine).await.unwrap().fence, first.fence);
        let busy = mails.begin(&key, &Begin::new()).await.unwrap();
        assert_eq!((busy.status, busy.fence), (ClaimStatus::Busy, None));
        assert_eq!(mails.get(&key).await.unwrap().status, ClaimStatus::Busy);
        let told =
            mails.once_with(&key, &Begin::new().wait(Duration::ZERO), sent).await.unwrap_err();
        assert!(told.retry_after().is_some());
        assert!(matches!(told, Error::InProgress(_)), "{told}");
    })
    .await;
}

#[tokio::test]
async fn a_claim_is_completed_once_and_the_same_words_again_change_nothing() {
    of_both(async |once| {
        let (mails, key) =
            (once.claims("mails").lease(Duration::from_millis(90_500)), fresh("welcome"));
        let fence = mails.begin(&key, &Begin::new()).await.unwrap().fence.unwrap();
        assert_eq!(mails.renew(&key, fence).await.unwrap().status, ClaimStatus::Acquired);
        for _ in 0..2 {
            let done = mails.complete(&key, fence, json!({ "mail": 1 })).await.unwrap();
            assert_eq!(done.status, ClaimStatus::Done);
        }
        for (fence, mail) in [(fence, 2), (fence - 1, 1)] {
            let told = mails.complete(&key, fence, json!({ "mail": mail })).await.unwrap_err();
            assert!(matches!(told, Error::FenceStale(_)), "{told}");
        }
        assert_eq!(mails.get(&key).await.unwrap().outcome, Some(json!({ "mail": 1 })));
        let told = mails.once(&key, sent).await.unwrap_err();
        assert!(matches!(told, Error::Outcome { .. }), "it is no text: {told}");
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_given_back_can_be_begun_or_is_in_doubt() {
    of_both(async |once| {
        let mails = once.claims("mails");
        let key = fresh("welcome");
        let first = mails.begin(&key, &Begin::new()).await.unwrap().fence.unwrap();
        mails.release(&key, first, &NotDone::new("no time")).await.unwrap();
        let second = mails.begin(&key, &Begin::new()).await.unwrap().fence.unwrap();
        assert!(second > first);
        let given = mails.release_unknown(&key, second, "who knows").await.unwrap();
        assert_eq!(given.status, ClaimStatus::InDoubt);
    })
    .await;
}

#[tokio::test]
async fn a_word_that_comes_late_is_weighed_by_what_became_of_the_claim() {
    of_both(async |once| {
        let mails = once.claims("mails");
        let harmless = Begin::new().effects(Effects::Idempotent);
        // Its holder did not know, and then it did.
        let key = fresh("welcome");
        let fence = mails.begin(&key, &harmless).await.unwrap().fence.unwrap();
        for _ in 0..2 {
            let given = mails.release_unknown(&key, fence, "who knows").await.unwrap();
            assert_eq!(given.status, ClaimStatus::Released);
        }
        assert_eq!(mails.get(&key).await.unwrap().status, ClaimStatus::Lapsed);
        let done = mails.complete(&key, fence, json!(1)).await.unwrap();
        assert_eq!(done.status, ClaimStatus::Done);
        // In doubt, and then it knows that nothing was done.
        let key = fresh("welcome");
        let fence = mails.begin(&key, &Begin::new()).await.unwrap().fence.unwrap();
        mails.release_unknown(&key, fence, "who knows").await.unwrap();
        for _ in 0..2 {
            let given = mails.release(&key, fence, &NotDone::new("nothing")).await.unwrap();
            assert_eq!(given.status, ClaimStatus::Released);
        }
        let told = mails.complete(&key, fence, json!(1)).await.unwrap_err();
        assert!(matches!(told, Error::FenceStale(_)), "{told}");
        let told = mails.release_unknown(&key, fence, "who knows").await.unwrap_err();
        assert!(matches!(told, Error::FenceStale(_)), "{told}");
    })
    .await;
}

#[tokio::test]
async fn what_a_first_begin_says_is_remembered_and_later_ones_change_nothing_of_it() {
    of_both(async |once| {
        let (mails, key) = (once.claims("mails"), fresh("welcome"));
        let first = mails.begin(&key, &Begin::new()).await.unwrap();
        mails.release(&key, first.fence.unwrap(), &NotDone::new("no time")).await.unwrap();
        let harmless = Begin::new().effects(Effects::Idempotent).fingerprint("anna");
        let second = mails.begin(&key, &harmless).await.unwrap();
        assert_eq!(second.effects, Effects::NonIdempotent);
        let given = mails.release_unknown(&key, second.fence.unwrap(), "who knows").await.unwrap();
        assert_eq!(given.status, ClaimStatus::InDoubt);
        let other = mails.begin(&key, &Begin::new().fingerprint("otto")).await.unwrap();
        assert_eq!(
            other.status,
            ClaimStatus::InDoubt,
            "the first said nothing of what it is about"
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_given_back_for_later_is_busy_until_then() {
    of_both(async |once| {
        let (mails, key) = (once.claims("mails"), fresh("welcome"));
        let fence = mails.begin(&key, &Begin::new()).await.unwrap().fence.unwrap();
        let later = NotDone::new("no time").after(Duration::from_hours(1));
        mails.release(&key, fence, &later).await.unwrap();
        let busy = mails.begin(&key, &Begin::new()).await.unwrap();
        assert_eq!(busy.status, ClaimStatus::Busy);
        assert!(busy.retry_after_ms > Some(3_000_000), "{:?}", busy.retry_after_ms);
        let key = fresh("welcome");
        let fence = mails.begin(&key, &Begin::new()).await.unwrap().fence.unwrap();
        let soon = NotDone::new("no time").after(Duration::from_millis(20));
        mails.release(&key, fence, &soon).await.unwrap();
        assert_eq!(mails.once(&key, sent).await.unwrap(), "sent");
    })
    .await;
}

#[tokio::test]
async fn an_outcome_that_cannot_be_written_leaves_a_doubt_at_once() {
    of_both(async |once| {
        let (mails, key) = (once.claims("mails"), fresh("welcome"));
        // JSON has no such keys.
        let odd = async |_| Ok::<_, BoxError>(std::collections::HashMap::from([((1, 2), 3)]));
        let told = mails.once(&key, odd).await.unwrap_err();
        assert!(matches!(told, Error::Outcome { .. }), "{told}");
        assert_eq!(told.advice(), Advice::Escalate);
        assert_eq!(mails.get(&key).await.unwrap().status, ClaimStatus::InDoubt);
    })
    .await;
}

#[tokio::test]
async fn what_did_not_succeed_is_told_to_all_as_that() {
    of_both(async |once| {
        let (mails, key) = (once.claims("mails"), fresh("welcome"));
        let fence = mails.begin(&key, &Begin::new()).await.unwrap().fence.unwrap();
        mails.fail(&key, fence, json!({ "why": "no such mailbox" })).await.unwrap();
        let told = mails.once(&key, sent).await.unwrap_err();
        let Error::EffectFailed { outcome, .. } = told else { panic!("{told}") };
        assert_eq!(outcome, json!({ "why": "no such mailbox" }));
    })
    .await;
}

#[tokio::test]
async fn the_key_of_a_claim_is_compared_by_what_it_is_about() {
    of_both(async |once| {
        let (mails, key) = (once.claims("mails"), fresh("welcome to/all ?"));
        let about = |who: &str| Begin::new().fingerprint(json!({ "to": who }));
        mails.begin(&key, &about("anna")).await.unwrap();
        let told = mails.begin(&key, &about("otto")).await.unwrap_err();
        let Error::KeyMismatch(refusal) = told else { panic!("{told}") };
        assert_eq!(refusal.problem().differs.as_deref(), Some(&["fingerprint".to_owned()][..]));
    })
    .await;
}
