//! Who launches next: by priority, then fairly across namespaces, then by age. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::capacity::Gate;
use crate::ids::OfferingId;

/// A place in the line.
pub(in crate::driver) type Ticket = u64;

/// Who waits, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::driver) struct Applicant {
    /// Higher goes first.
    pub(in crate::driver) priority: i32,
    pub(in crate::driver) namespace: String,
    /// Since when the pod waits.
    pub(in crate::driver) since: Timestamp,
    pub(in crate::driver) offering: OfferingId,
}

/// What a look at the line comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This one.
    Go(Ticket),
    /// This one, with the news that its offering has closed.
    Closed(Ticket),
    /// Nobody before this time, or before an answer; None is before an answer only.
    Nobody(Option<Timestamp>),
}

/// How a namespace was served.
#[derive(Clone, Copy, Debug, Default)]
struct Served {
    under_way: u32,
    /// Smaller was served longer ago.
    last: u64,
}

type ByAge = BTreeSet<(Timestamp, Ticket)>;

/// Launches that wait. Ordered by priority, then by how few launches of the namespace are under way, then by how long ago it was served,
/// then by age. One that cannot begin now is passed over: it holds up nobody.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: BTreeMap<Reverse<i32>, BTreeMap<String, BTreeMap<OfferingId, ByAge>>>,
    applicants: BTreeMap<Ticket, Applicant>,
    offerings: BTreeMap<OfferingId, usize>,
    served: BTreeMap<String, Served>,
    tickets: Ticket,
    serial: u64,
}

impl Line {
    pub(super) fn join(&mut self, applicant: Applicant) -> Ticket {
        self.tickets += 1;
        let ticket = self.tickets;
        let namespaces = self.waiting.entry(Reverse(applicant.priority)).or_default();
        let offerings = namespaces.entry(applicant.namespace.clone()).or_default();
        let ages = offerings.entry(applicant.offering.clone()).or_default();
        ages.insert((applicant.since, ticket));
        *self.offerings.entry(applicant.offering.clone()).or_default() += 1;
        self.applicants.insert(ticket, applicant);
        ticket
    }

    /// Takes somebody out of the line.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<Applicant> {
        let applicant = self.applicants.remove(&ticket)?;
        if let Some(namespaces) = self.waiting.get_mut(&Reverse(applicant.priority)) {
            if let Some(offerings) = namespaces.get_mut(&applicant.namespace) {
                if let Some(ages) = offerings.get_mut(&applicant.offering) {
                    ages.remove(&(applicant.since, ticket));
                    if ages.is_empty() {
                        offerings.remove(&applicant.offering);
                    }
                }
                if offerings.is_empty() {
                    namespaces.remove(&applicant.namespace);
                }
            }
            if namespaces.is_empty() {
                self.waiting.remove(&Reverse(applicant.priority));
            }
        }
        if let Some(count) = self.offerings.get_mut(&applicant.offering) {
            *count -= 1;
            if *count == 0 {
                self.offerings.remove(&applicant.offering);
            }
        }
        Some(applicant)
    }

    /// Notes that a namespace was served; [`ended`](Self::ended) must follow.
    pub(super) fn began(&mut self, namespace: &str) {
        self.serial += 1;
        let served = self.served.entry(namespace.to_owned()).or_default();
        served.under_way += 1;
        served.last = self.serial;
    }

    pub(super) fn ended(&mut self, namespace: &str) {
        if let Some(served) = self.served.get_mut(namespace) {
            served.under_way = served.under_way.saturating_sub(1);
            let is_waiting = self
                .waiting
                .values()
                .any(|namespaces| namespaces.contains_key(namespace));
            if served.under_way == 0 && !is_waiting {
                self.served.remove(namespace);
            }
        }
    }

    /// Who is next, by what the offerings that are waited for allow now.
    pub(super) fn next(&self, gate: impl Fn(&OfferingId) -> Gate) -> Next {
        let mut wake = None;
        let mut open: BTreeSet<&OfferingId> = BTreeSet::new();
        for offering in self.offerings.keys() {
            match gate(offering) {
                Gate::Go => {
                    open.insert(offering);
                }
                Gate::Wait(until) => wake = Some(wake.map_or(until, |wake: Timestamp| wake.min(until))),
                Gate::Closed => {
                    if let Some(ticket) = self.first_for(offering) {
                        return Next::Closed(ticket);
                    }
                }
            }
        }
        if open.is_empty() {
            return Next::Nobody(wake);
        }
        for namespaces in self.waiting.values() {
            let served = |namespace: &str| self.served.get(namespace).copied().unwrap_or_default();
            let mut order: Vec<_> = namespaces.iter().collect();
            order.sort_by_key(|(namespace, _)| {
                let served = served(namespace);
                (served.under_way, served.last)
            });
            for (_, offerings) in order {
                let heads = offerings.iter().filter(|(offering, _)| open.contains(offering));
                if let Some((_, ticket)) = heads.filter_map(|(_, ages)| ages.first()).min() {
                    return Next::Go(*ticket);
                }
            }
        }
        Next::Nobody(wake)
    }

    fn first_for(&self, offering: &OfferingId) -> Option<Ticket> {
        let namespaces = self.waiting.values().flat_map(BTreeMap::values);
        let mut ages = namespaces.filter_map(|offerings| offerings.get(offering));
        ages.find_map(|ages| ages.first().map(|(_, ticket)| *ticket))
    }

    pub(super) fn len(&self) -> usize {
        self.applicants.len()
    }

    /// Since when the pod waits that waits the longest.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.applicants.values().map(|applicant| applicant.since).min()
    }

    /// All who wait.
    pub(super) fn tickets(&self) -> Vec<Ticket> {
        self.applicants.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{InstanceType, Zone};
    use crate::model::CapacityType;

    fn offering(name: &str) -> OfferingId {
        OfferingId {
            instance_type: InstanceType::new(name),
            zone: Zone::new("z1"),
            capacity_type: CapacityType::OnDemand,
        }
    }

    fn applicant(namespace: &str, priority: i32, since: i64, name: &str) -> Applicant {
        Applicant {
            priority,
            namespace: namespace.into(),
            since: Timestamp::from_second(since).unwrap(),
            offering: offering(name),
        }
    }

    fn serve(line: &mut Line) -> Applicant {
        let Next::Go(ticket) = line.next(|_| Gate::Go) else {
            panic!("somebody waits");
        };
        let applicant = line.leave(ticket).unwrap();
        line.began(&applicant.namespace);
        applicant
    }

    #[test]
    fn one_namespace_with_a_thousand_pods_does_not_hold_up_another_with_one() {
        let mut line = Line::default();
        for n in 0..1000 {
            line.join(applicant("big", 0, n, "a"));
        }
        line.join(applicant("small", 0, 5000, "a"));
        let first = [serve(&mut line).namespace, serve(&mut line).namespace];
        assert!(first.contains(&"small".into()), "{first:?}");
        for _ in 0..998 {
            assert_eq!(serve(&mut line).namespace, "big");
        }
    }

    #[test]
    fn what_matters_more_goes_first_and_within_a_namespace_the_oldest() {
        let mut line = Line::default();
        line.join(applicant("n", 0, 1, "a"));
        line.join(applicant("n", 0, 0, "b"));
        line.join(applicant("n", 1000, 9, "a"));
        let served: Vec<_> = (0..3).map(|_| serve(&mut line).since.as_second()).collect();
        assert_eq!(served, [9, 0, 1]);
    }

    #[test]
    fn who_waits_for_what_cannot_be_had_now_holds_up_nobody() {
        let mut line = Line::default();
        line.join(applicant("n", 1000, 0, "blocked"));
        let second = line.join(applicant("n", 0, 1, "open"));
        let until = Timestamp::from_second(50).unwrap();
        let gate = |id: &OfferingId| {
            if *id == offering("open") {
                Gate::Go
            } else {
                Gate::Wait(until)
            }
        };
        assert_eq!(line.next(gate), Next::Go(second));
        line.leave(second);
        assert_eq!(line.next(gate), Next::Nobody(Some(until)));
    }

    proptest! {
        /// Every one who joined is served exactly once; nobody before one of higher priority; and namespaces of equal priority that
        /// wait are never more than one launch apart in what they have under way.
        #[test]
        fn nobody_is_forgotten_and_no_namespace_gets_ahead(list in prop::collection::vec((0_u8..4, 0_i32..2, 0_i64..50, 0_u8..3), 1..80)) {
            let mut line = Line::default();
            for (namespace, priority, since, name) in &list {
                line.join(applicant(&format!("n{namespace}"), *priority, *since, &format!("o{name}")));
            }
            let mut under_way: BTreeMap<String, i64> = BTreeMap::new();
            let mut last = i32::MAX;
            for _ in 0..list.len() {
                let served = serve(&mut line);
                prop_assert!(served.priority <= last);
                last = served.priority;
                let own = under_way.get(&served.namespace).copied().unwrap_or(0);
                for waiting in line.applicants.values().filter(|other| other.priority == served.priority) {
                    prop_assert!(own <= under_way.get(&waiting.namespace).copied().unwrap_or(0));
                }
                *under_way.entry(served.namespace).or_default() += 1;
            }
            prop_assert_eq!(line.len(), 0);
            prop_assert_eq!(line.next(|_| Gate::Go), Next::Nobody(None));
            prop_assert!(line.waiting.is_empty() && line.offerings.is_empty());
        }
    }
}
