use std::sync::Arc;

use k8s_openapi::api::certificates::v1::PodCertificateRequestStatus;
use kube::core::ApiResource;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::super::key;
use super::super::request::Name;
use super::*;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + 60 * minute).unwrap()
}

fn asked() -> Asked {
    let (key, _) = key::make("ED25519").unwrap();
    let name = Name::new("n", "req-1");
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
    Asked { name, signer: "example.com/s".to_owned(), key: Arc::new(key), resource }
}

fn ended(status: Value) -> Answer {
    let status: PodCertificateRequestStatus = serde_json::from_value(status).unwrap();
    Answer::Ended(Box::new(status))
}

fn condition(kind: &str, reason: &str) -> Value {
    json!([{"type": kind, "status": "True", "reason": reason, "message": "as the test asked",
            "lastTransitionTime": at(0).to_string()}])
}

/// The signer's answer for this key.
fn issue(pair: &KeyPair, refresh: Timestamp, expires: Timestamp) -> Answer {
    let chain = CertificateParams::default().self_signed(pair).unwrap().pem();
    ended(json!({"conditions": condition("Issued", "Issued"), "certificateChain": chain,
                 "notBefore": at(0).to_string(), "beginRefreshAt": refresh.to_string(),
                 "notAfter": expires.to_string()}))
}

fn later_by_a_minute(longest: SignedDuration) -> SignedDuration {
    longest.min(SignedDuration::from_mins(1))
}

/// Asks now, and has the answer at once: to be renewed from minute 30 on, and good for 60.
fn with_one(held: &mut Held, minute: i64) {
    let asked = asked();
    let pair = KeyPair::from_pem(&asked.key.pem).unwrap();
    held.asked(Ok(asked), at(minute)).unwrap();
    let answer = issue(&pair, at(minute + 30), at(minute + 60));
    assert_eq!(held.take(answer, at(minute), later_by_a_minute), None);
}

#[test]
fn a_certificate_is_asked_for_once_and_again_when_its_signer_says() {
    let mut held = Held::default();
    assert!(held.is_due(at(0)) && held.due().is_none());
    assert_eq!(held.find().unwrap_err(), Lack::none());
    held.asked(Ok(asked()), at(0)).unwrap();
    assert!(!held.is_due(at(500)), "the signer may take its time");
    assert_eq!(held.take(Answer::Gone, at(1), later_by_a_minute), None);
    assert!(held.is_due(at(1)), "a request that was removed is made anew");
    with_one(&mut held, 1);
    let first = held.find().unwrap().key.clone();
    assert_eq!(held.due(), Some(at(32)), "a minute of jitter");
    assert!(!held.is_due(at(31)) && held.is_due(at(32)));
    held.asked(Ok(asked()), at(32)).unwrap();
    assert_eq!(held.find().unwrap().key, first, "the old one serves meanwhile");
    assert!(!held.is_due(at(40)));
    assert_eq!(held.take(Answer::Gone, at(33), later_by_a_minute), None);
    assert!(held.is_due(at(33)));
    with_one(&mut held, 33);
    assert_ne!(held.find().unwrap().key, first, "each has a key of its own");
}

#[test]
fn what_cannot_be_asked_for_is_asked_for_again_and_takes_nothing_away() {
    let mut held = Held::default();
    held.asked(Err("away".to_owned()), at(0));
    assert!(held.is_due(at(0)), "a volume that is missing has waits of its own");
    assert_eq!(held.find().unwrap_err().why, "away");
    with_one(&mut held, 0);
    held.asked(Err("away".to_owned()), at(31));
    assert!(!held.is_due(at(31)) && held.is_due(at(32)));
    assert_eq!(held.due(), Some(at(32)));
    assert!(held.find().is_ok());
}

#[test]
fn a_refusal_is_for_ever_and_told_once_in_the_kubelets_words() {
    for (kind, state, event, volume) in [
        (
            "Denied",
            "denied",
            "PodCertificateRequest n/req-1 was denied, reason=\"UnsupportedKeyType\", message=\"as the test asked\"",
            "PodCertificateRequest was permanently denied: reason=\"UnsupportedKeyType\" message=\"as the test asked\"",
        ),
        (
            "Failed",
            "failed",
            "PodCertificateRequest n/req-1 failed, reason=\"UnsupportedKeyType\", message=\"as the test asked\"",
            "PodCertificateRequest was permanently failed: reason=\"UnsupportedKeyType\" message=\"as the test asked\"",
        ),
    ] {
        let mut held = Held::default();
        held.asked(Ok(asked()), at(0)).unwrap();
        let answer = ended(json!({"conditions": condition(kind, "UnsupportedKeyType")}));
        let note = held.take(answer, at(0), later_by_a_minute).unwrap();
        assert_eq!((note.reason, note.message.as_str()), (kind, event));
        let lack = held.find().unwrap_err();
        assert_eq!((lack.why.as_str(), held.state(at(0))), (volume, state));
        assert!(!lack.is_young(at(0)) && !held.is_due(at(1000)) && held.due().is_none());
    }
}

#[test]
fn a_refused_renewal_leaves_the_pod_what_it_has() {
    let mut held = Held::default();
    with_one(&mut held, 0);
    held.asked(Ok(asked()), at(31)).unwrap();
    let answer = ended(json!({"conditions": condition("Denied", "No")}));
    assert!(held.take(answer, at(31), later_by_a_minute).is_some());
    assert!(held.find().is_ok() && !held.is_due(at(1000)));
    assert_eq!(held.state(at(32)), "denied", "whoever watches has to know");
}

#[test]
fn a_certificate_for_another_key_is_a_failure() {
    let mut held = Held::default();
    held.asked(Ok(asked()), at(0)).unwrap();
    let other = KeyPair::generate().unwrap();
    let note = held.take(issue(&other, at(30), at(60)), at(0), later_by_a_minute).unwrap();
    assert_eq!(note.reason, "Failed");
    let why = held.find().unwrap_err().why;
    assert!(why.contains("InvalidCertificateChain") && why.contains("not for this pod's key"));
}

#[test]
fn a_signer_may_take_a_moment_and_is_named_after_it() {
    let mut held = Held::default();
    held.asked(Ok(asked()), at(0)).unwrap();
    let lack = held.find().unwrap_err();
    assert!(lack.is_young(at(0)) && !lack.is_young(at(1)));
    assert_eq!(
        lack.why,
        "credential bundle is not issued yet: signer \"example.com/s\" has not answered PodCertificateRequest n/req-1"
    );
}

#[test]
fn an_old_certificate_is_told_of_once_and_stays() {
    let mut held = Held::default();
    with_one(&mut held, 0);
    held.asked(Ok(asked()), at(31)).unwrap();
    assert_eq!(held.age(at(40)), []);
    assert_eq!(held.due(), Some(at(41)));
    let told = |held: &mut Held, minute| -> Vec<_> {
        held.age(at(minute)).into_iter().map(|note| note.reason).collect()
    };
    assert_eq!(told(&mut held, 41), ["CertificateOverdueForRefresh"]);
    assert_eq!(held.due(), Some(at(60)));
    assert_eq!(told(&mut held, 60), ["CertificateExpired"]);
    assert_eq!(told(&mut held, 61), [""; 0]);
    assert!(held.due().is_none() && held.find().is_ok());
}

#[test]
fn the_jitter_of_a_short_life_is_short() {
    let longest = |refresh, expires| {
        let mut held = Held::default();
        let asked = asked();
        let pair = KeyPair::from_pem(&asked.key.pem).unwrap();
        held.asked(Ok(asked), at(0)).unwrap();
        held.take(issue(&pair, at(refresh), at(expires)), at(0), |longest| longest);
        held.due().unwrap().duration_since(at(refresh)).as_secs()
    };
    assert_eq!(longest(60, 120), 300);
    assert_eq!(longest(50, 60), 150);
    assert_eq!(longest(60, 60), 0);
}

#[test]
fn the_states_of_the_metric_are_those_of_its_age() {
    let mut held = Held::default();
    assert_eq!(held.state(at(0)), "not_yet_issued");
    held.asked(Ok(asked()), at(0)).unwrap();
    assert_eq!(held.state(at(0)), "not_yet_issued");
    with_one(&mut held, 0);
    for (minute, state) in
        [(0, "fresh"), (40, "fresh"), (41, "overdue_for_refresh"), (60, "expired")]
    {
        assert_eq!(held.state(at(minute)), state, "{minute}");
    }
}

#[test]
fn a_certificate_is_renewed_in_time_though_the_clock_was_set() {
    for set in [600, -600] {
        let mut held = Held::default();
        with_one(&mut held, 0);
        held.move_by(SignedDuration::from_mins(set));
        assert_eq!(held.due(), Some(at(31 + set)));
        held.asked(Err("away".to_owned()), at(31 + set));
        held.move_by(SignedDuration::from_mins(-set));
        assert!(!held.is_due(at(31)) && held.is_due(at(32)));
        held.asked(Ok(asked()), at(32)).unwrap();
        held.move_by(SignedDuration::from_mins(set));
        assert_eq!(held.state(at(60 + set)), "expired");
    }
}

#[test]
fn what_another_clock_gave_lives_as_long() {
    // This machine's clock is behind, ahead: renewal and end are as far from now as they are from the beginning.
    for now in [-500, 500] {
        let mut held = Held::default();
        let asked = asked();
        let pair = KeyPair::from_pem(&asked.key.pem).unwrap();
        held.asked(Ok(asked), at(now)).unwrap();
        held.take(issue(&pair, at(30), at(60)), at(now), later_by_a_minute);
        assert_eq!((held.due(), held.state(at(now))), (Some(at(now + 31)), "fresh"), "{now}");
    }
}
