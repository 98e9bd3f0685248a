//! Takes a broken story apart until only what matters is left.

use super::fleet::run_safely;
use super::scenario::{PodPlan, Scenario};

/// The smallest story that still breaks the same rule, as far as leaving out pods, faults and timelines finds it. `budget` bounds how many
/// stories are tried.
pub fn minimise(scenario: &Scenario, rule: &str, budget: usize) -> Scenario {
    let mut search = Search {
        best: scenario.clone(),
        rule: rule.to_owned(),
        left: budget,
    };
    loop {
        let before = search.best.clone();
        search.shrink_list(|scenario| &mut scenario.faults);
        search.shrink_list(|scenario| &mut scenario.pods);
        search.simplify();
        if search.best == before || search.left == 0 {
            return search.best;
        }
    }
}

struct Search {
    best: Scenario,
    rule: String,
    left: usize,
}

impl Search {
    fn try_one(&mut self, candidate: Scenario) -> bool {
        if self.left == 0 || candidate == self.best {
            return false;
        }
        self.left -= 1;
        let outcome = run_safely(&candidate);
        let is_same = outcome
            .violations
            .iter()
            .any(|violation| violation.rule == self.rule);
        if is_same {
            self.best = candidate;
        }
        is_same
    }

    /// Leaves out halves, quarters, ... and at last single elements of a list.
    fn shrink_list<T>(&mut self, list: impl Fn(&mut Scenario) -> &mut Vec<T>) {
        let mut chunk = list(&mut self.best).len().max(1);
        loop {
            let mut at = 0;
            while at < list(&mut self.best).len() {
                let mut candidate = self.best.clone();
                let elements = list(&mut candidate);
                let end = (at + chunk).min(elements.len());
                elements.drain(at..end);
                if !self.try_one(candidate) {
                    at += chunk;
                }
            }
            if chunk == 1 {
                return;
            }
            chunk = chunk.div_ceil(2);
        }
    }

    fn simplify(&mut self) {
        for n in 0..self.best.pods.len() {
            let changes: [fn(&mut PodPlan); 7] = [
                |pod| pod.force_ms = None,
                |pod| pod.delete = None,
                |pod| pod.active_deadline_s = None,
                |pod| pod.work.runs_ms = None,
                |pod| pod.spot = false,
                |pod| pod.cpu = 1,
                |pod| pod.create_ms = 0,
            ];
            for change in changes {
                let mut candidate = self.best.clone();
                change(&mut candidate.pods[n]);
                self.try_one(candidate);
            }
        }
        let mut candidate = self.best.clone();
        candidate.world.throttle = None;
        self.try_one(candidate);
        let mut candidate = self.best.clone();
        for offering in &mut candidate.world.offerings {
            offering.capacity = None;
        }
        self.try_one(candidate);
        let mut candidate = self.best.clone();
        candidate.world.list_lag_ms = 0;
        self.try_one(candidate);
    }
}
