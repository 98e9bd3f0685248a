//! The simulator itself: what it finds stays found, and what it tells is always the same.

use std::path::Path;

use kip_testkit::sim::{Fleet, Scenario, Side, fleet, from_seed, run};

fn broken(fleet: &Fleet) -> String {
    let failures = fleet.failures.iter();
    let lines = failures.map(|failure| format!("seed {}: {:?}", failure.scenario.seed, failure.violations));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_same_seed_tells_the_same_story_or_a_broken_one_could_not_be_looked_at_again() {
    for (side, seeds) in [(Side::Traits, 0..12), (Side::Api, 0..3)] {
        for seed in seeds {
            let scenario = from_seed(seed, side);
            let (first, second) = (run(&scenario), run(&scenario));
            assert!(first.trace.len() > 20, "seed {seed} tells nothing");
            assert_eq!(first.trace, second.trace, "seed {seed}, {side:?}");
        }
    }
}

#[test]
fn no_seed_leaks_an_instance_loses_a_pod_or_runs_it_twice() {
    let fleet = fleet(0..120, 2, 3, |seed| from_seed(seed, Side::Traits));
    assert!(fleet.failures.is_empty(), "{}", broken(&fleet));
    assert!(
        fleet.launches > 500,
        "the stories buy too little to show anything"
    );
}

#[test]
fn no_seed_breaks_a_rule_with_the_real_kubelet_logic_before_a_simulated_api() {
    let fleet = fleet(0..16, 2, 3, |seed| from_seed(seed, Side::Api));
    assert!(fleet.failures.is_empty(), "{}", broken(&fleet));
}

#[test]
fn what_was_broken_once_stays_mended() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("the kept stories are there")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no story is kept in {}", folder.display());
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a kept story can be read");
        let scenario: Scenario = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{} is no story: {error}", path.display()));
        let outcome = run(&scenario);
        assert!(
            outcome.violations.is_empty(),
            "{}: {:?}",
            path.display(),
            outcome.violations
        );
    }
}
