//! Compares queries about all inputs that use indexes with queries that visit every input.

use super::*;
use proptest::prelude::*;

const STATUSES: [InputStatus; 5] =
    [InputStatus::Holding, InputStatus::Idle, InputStatus::Ended, InputStatus::Released, InputStatus::Unreadable];
const ASKED: [Asked; 4] = [Asked::NotYet, Asked::Backlog, Asked::AtEnd, Asked::Unreadable];

/// The blocker of an input, found by visiting all inputs.
fn blocker_by_walking(inputs: &Inputs, id: InputId) -> Option<Blocker> {
    let others = inputs.iter().filter(|input| input.row.id != id);
    let holding = others.filter(|input| input.row.status == InputStatus::Holding);
    let without: Vec<Asked> =
        holding.filter(|input| input.row.time.largest_ms.is_none()).map(|input| input.asked).collect();
    match without.as_slice() {
        [] => None,
        some if some.contains(&Asked::Backlog) => Some(Blocker::WithBacklog),
        _ => Some(Blocker::WithoutLines),
    }
}

proptest! {
    #[test]
    fn what_blocks_an_input_is_known_without_walking_all(
        steps in prop::collection::vec((0..6_u64, 0..8_usize, 0..4_usize, any::<bool>()), 1..60),
    ) {
        let mut inputs = Inputs::default();
        for (id, status, asked, has_watermark) in steps {
            let id = InputId(id);
            match (STATUSES.get(status), inputs.get(id)) {
                (Some(_), None) => inputs.insert(Input::new(Arc::new(InputRow::new(id, "a.log", 0)))),
                (Some(status), Some(_)) => {
                    inputs.change(id, |input| {
                        input.note(ASKED[asked]);
                        input.set_status(*status);
                        input.row_mut().time.largest_ms = has_watermark.then_some(7);
                    });
                }
                (None, _) => drop(inputs.remove_where(|input| input.row.id == id)),
            }
            for id in (0..6).map(InputId) {
                prop_assert_eq!(inputs.blocker_of(id), blocker_by_walking(&inputs, id));
            }
        }
    }
}
