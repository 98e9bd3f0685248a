//! The simulator itself: what it finds stays found, and what it tells is always the same.

use kip_testkit::sim::{Side, fleet, from_seed, run};

#[test]
fn the_same_seed_tells_the_same_story_or_a_broken_one_could_not_be_looked_at_again() {
    for seed in 0..12 {
        let scenario = from_seed(seed, Side::Traits);
        let (first, second) = (run(&scenario), run(&scenario));
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}

#[test]
fn no_seed_leaks_an_instance_loses_a_pod_or_runs_it_twice() {
    let fleet = fleet(0..150, 2, 3, |seed| from_seed(seed, Side::Traits));
    let broken: Vec<String> = fleet
        .failures
        .iter()
        .map(|failure| format!("seed {}: {:?}", failure.scenario.seed, failure.violations))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
