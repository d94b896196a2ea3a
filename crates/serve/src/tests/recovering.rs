//! Answers while the state is recovered.

use super::Bench;
use super::errors::{check, document};
use crate::problem::ProblemKind;

/// Until the state is recovered, only liveness, readiness and constant content are available.
#[test]
fn while_the_state_is_recovered_nothing_is_made_up() {
    let bench = Bench::new();
    bench.process.recovers("12 of 97 records are read");
    let expected = document(ProblemKind::Recovering, "12 of 97 records are read; /readyz reports when this is done");
    for refused in ["/ads/7/clicks?minutes=5", "/ads/top100?minutes=5", "/ledger", "/metrics"] {
        let reply = bench.get(refused);
        check(&reply, ProblemKind::Recovering, &expected);
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    for answered in ["/healthz", "/readyz", "/problems", "/openapi.json", "/"] {
        assert_eq!(bench.get(answered).status, 200, "{answered}");
    }
    assert_eq!(bench.get("/ads/7/clicks").status, 400, "a wrong question stays wrong");
    assert_eq!(bench.store.asked(), []);
}
