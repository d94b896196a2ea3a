//! A death before and after every single operation.

use crate::deployment::Deployment;
use crate::faulty_store::{Fault, Side};
use crate::oracle::Logs;

#[test]
fn probe() {
    let logs = Logs::generate(1, 240);
    let expected = logs.expected();
    eprintln!("{:?}", crate::oracle::Expected { counts: Default::default(), ..expected.clone() });
    let clock = adtally::clock::SystemClock;
    use adtally::clock::Clock;
    let base = Deployment::new(90);
    base.write(&logs);
    let t = clock.monotonic_ms();
    let (outcome, faults) = base.run(Fault::None, 1);
    eprintln!("run {} ms {:?}", clock.monotonic_ms() - t, outcome.map_err(|e| e.report()));
    for (i, op) in faults.operations().iter().enumerate() {
        eprintln!("{i} {op:?}");
    }
    let t = clock.monotonic_ms();
    base.check(&expected, "probe");
    eprintln!("check {} ms", clock.monotonic_ms() - t);
    let fork = base.fork();
    let t = clock.monotonic_ms();
    let (outcome, faults) = fork.run(Fault::Death(30, Side::Before), 1);
    eprintln!(
        "crashed {} ms {:?} {} {} {:?}",
        clock.monotonic_ms() - t,
        outcome.map_err(|e| e.report()),
        faults.is_dead(),
        faults.hits(),
        fork.records()
    );
}
