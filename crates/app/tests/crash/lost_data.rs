//! Stored data is lost: a start reports this with what to do, writes nothing, and reports it again next time.

use crate::deployment::Deployment;
use crate::oracle::Logs;
use adtally_model::ErrorKind;

/// A supervisor restarts a process that ends at once over and over. If each start appended a claim, the log's numbers
/// would exceed the lake's, and lines whose records are lost would be read and counted again.
#[test]
fn a_log_that_lost_its_end_stays_as_it_is_however_often_it_is_started() {
    let logs = Logs::generate(5, 120);
    let deployment = Deployment::new(20);
    deployment.write(&logs);
    deployment.run_well("first");
    let (head, lost) = (deployment.head(), 3);
    for number in head - lost + 1..=head {
        deployment.lose_record(number);
    }
    for start in 0..lost + 3 {
        let error = deployment.start_fails();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "start {start}: {}", error.report());
        assert!(error.to_string().contains("Restore the folder `epochs`"), "{error}");
        assert_eq!(deployment.head(), head - lost, "start {start} wrote a record");
    }
}

#[test]
fn a_lost_table_is_not_made_again() {
    let logs = Logs::generate(6, 60);
    let deployment = Deployment::new(20);
    deployment.write(&logs);
    deployment.run_well("first");
    let head = deployment.head();
    deployment.lose_table("dead_letters");
    for _ in 0..2 {
        let error = deployment.start_fails();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.report());
        assert!(error.to_string().contains("`dead_letters` is missing"), "{error}");
        assert_eq!(deployment.head(), head);
    }
}
