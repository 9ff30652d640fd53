//! Whatever is seen of a pod, in whatever order, its status moves as Kubernetes allows: sequences of what can happen, played on
//! the record that a worker keeps and told by the function that it tells with.

mod play;
mod rules;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;

use play::{Event, Play, Shape};

fn shape() -> impl Strategy<Value = Shape> {
    let policy = prop_oneof!["Always", "OnFailure", "Never"];
    (policy, vec(0..3_u8, 0..3), vec(0..5_u8, 1..3), any::<bool>())
        .prop_map(|(policy, init, regular, probes)| Shape { policy, init, regular, probes })
}

fn event() -> impl Strategy<Value = Event> {
    let container = 0..4_usize;
    let code = prop_oneof![4 => Just(0), 3 => Just(1), 1 => Just(7), 1 => Just(137)];
    prop_oneof![
        6 => (any::<bool>(), any::<bool>()).prop_map(|(image, launch)| Event::Turn { image, launch }),
        2 => (0..700_u32).prop_map(Event::Wait),
        6 => container.clone().prop_map(Event::Start),
        5 => (container.clone(), code).prop_map(|(container, code)| Event::End(container, code)),
        3 => (container.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(container, started, ready)| Event::Probe { container, started, ready }),
        1 => container.prop_map(Event::Halt),
        1 => Just(Event::Change),
        1 => Just(Event::Delete),
        1 => (0..3_u8).prop_map(Event::Fail),
        4 => Just(Event::Publish),
        4 => Just(Event::Watch),
        1 => Just(Event::AgentRestart),
    ]
}

proptest! {
    #![proptest_config(Config { cases: 1024, max_shrink_iters: 20_000, ..Config::default() })]
    #[test]
    fn no_sequence_of_events_is_told_against_the_rules(
        shape in shape(),
        events in vec(event(), 1..60),
    ) {
        let mut play = Play::new(&shape);
        for (step, event) in events.iter().enumerate() {
            if let Err(broken) = play.step(event) {
                return Err(TestCaseError::fail(format!("step {step}, {event:?}: {broken}")));
            }
        }
    }
}
