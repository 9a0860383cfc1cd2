//! Tokens of other libraries (`tests/signers/make.sh` makes them): each is taken, and each change of one is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::*;
use crate::config::Auth;

const TOKENS: &str = include_str!("../../tests/signers/tokens.jsonl");
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NOW: UnixSeconds = 1_800_000_001;

#[derive(Deserialize)]
struct Signed {
    signer: String,
    alg: String,
    token: String,
}

/// All keys that the signers have, each with the algorithm of its own.
fn keys() -> KeySet {
    let public = |pem| read_public_keys(pem).expect("a public key").remove(0);
    let secret = |name| {
        let json = format!(r#"{{"keys":[{{"kty":"oct","alg":"{name}","k":"{}"}}]}}"#, URL_SAFE_NO_PAD.encode(SECRET));
        read_key_set(json.as_bytes(), SetOrigin::File).expect("a key set").keys.remove(0)
    };
    let rsa = include_str!("../../tests/harness/keys/rsa.pub.pem");
    let mut keys = vec![
        public(rsa),
        public(include_str!("../../tests/harness/keys/ec.pub.pem")),
        public(include_str!("../../tests/harness/keys/ed.pub.pem")),
        attack_tests::rsa_for_pss(),
    ];
    keys.extend(["HS256", "HS384", "HS512"].map(secret));
    KeySet::new(keys).expect("few keys")
}

#[test]
fn tokens_of_four_libraries_are_taken_and_each_change_of_one_is_refused() {
    check(TOKENS);
}

/// The same with tokens that are made now, by libraries that are fetched where they are not there.
#[test]
#[ignore = "needs python3, node, go, java and mvn, and registries"]
fn the_same_with_fresh_tokens() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/signers/make.sh");
    let made = std::process::Command::new(script).arg("-").output().expect("a shell");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    check(std::str::from_utf8(&made.stdout).expect("JSON"));
}

fn check(tokens: &str) {
    let settings = Auth { audiences: vec!["todos".to_owned()], ..Auth::default() };
    let mut verifier = Verifier::new(Arc::new(keys()), &settings);
    let mut verify = |token: &str| {
        let field = format!("Bearer {token}");
        verifier.verify(Some(field.as_bytes()), NOW, &FailedChecks::default()).map(|user| user.to_string())
    };
    let (mut libraries, mut algorithms) = (BTreeSet::new(), BTreeSet::new());
    for line in tokens.lines() {
        let Signed { signer, alg, token } = serde_json::from_str(line).expect("a line of make.sh");
        assert_eq!(verify(&token), Ok("alice".to_owned()), "{signer}, {alg}");
        for place in (0..token.len()).step_by(3) {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(verify(&changed).is_err(), "{signer}, {alg}: {changed}");
        }
        assert!(verify(&token[..token.len() - 1]).is_err() && verify(&format!("{token}.")).is_err());
        libraries.insert(signer);
        algorithms.insert(alg);
    }
    assert_eq!((libraries.len(), algorithms.len()), (4, Algorithm::ALL.len()), "{libraries:?} {algorithms:?}");
}
