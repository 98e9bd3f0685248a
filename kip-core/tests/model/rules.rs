//! What can happen next, and what follows from it. Everything a controller decides comes from the [`Mind`]; what the driver does
//! around the machine is written out here after `driver/{persist,follow,recovery,sweep,core}.rs`.

use std::sync::atomic::Ordering;

use kip_core::model::CellPhase;

use crate::checked::{Checked, Defect};
use crate::cloud;
use crate::mind::{Mind, key_of_id};
use crate::words::{Agent, Do, Key, Life, News, RecordId, StateId, View};
use crate::world::{Act, Broken, Call, Controller, PodObject, Progress, System, Told, What, Wish};

impl Checked {
    /// Everything that can happen in a state.
    pub(crate) fn possible(&self, system: &System, acts: &mut Vec<Act>) {
        let left = &system.left;
        let may_start = |index| index == 0 || (system.controller(0).is_some() && self.bounds.controllers > 1);
        for index in 0..2_u8 {
            match system.controller(index) {
                None if left.starts > 0 && may_start(index) => acts.push(Act::Start(index)),
                None => {}
                Some(controller) => self.possible_to(system, index, controller, acts),
            }
        }
        let is_free = |owner| system.controller(owner).is_some_and(Controller::is_free);
        for (at, call) in system.calls.iter().enumerate() {
            if at > 0 && system.calls[at - 1] == *call {
                continue; // One of two equal calls is as good as the other.
            }
            match call.what {
                // Its reply is heard at once, so it is carried out when somebody can hear it: a read that is heard later is a read that is
                // made later, as far as anybody can tell.
                Progress::Sent(what)
                    if what.is_heard_at_once() && call.owner.is_some_and(|owner| !is_free(owner)) => {}
                Progress::Sent(what) => {
                    let hows = cloud::hows(what, left, self.bounds.offerings);
                    acts.extend(hows.map(|how| Act::Carry(*call, how)));
                }
                Progress::Replied(_) => {
                    if call.owner.is_some_and(is_free) {
                        acts.push(Act::Deliver(*call));
                    }
                }
            }
        }
        for instance in &system.cloud {
            let key = instance.key;
            match instance.life {
                Life::Boots => acts.push(Act::Boots(key)),
                Life::Dying => acts.push(Act::Vanishes(key)),
                Life::Up | Life::Gone => {}
            }
            if matches!(instance.life, Life::Boots | Life::Up) {
                if left.deaths > 0 || instance.is_doomed {
                    acts.push(Act::Dies(key));
                }
                if left.interruptions > 0 && !instance.is_doomed {
                    acts.push(Act::Interrupt(key, None));
                    acts.extend(
                        (0..2)
                            .filter(|c| self.has_instance(system, *c, key))
                            .map(|c| Act::Interrupt(key, Some(c))),
                    );
                }
            }
            if instance.is_alive() && instance.agent == Agent::Stopping {
                acts.push(Act::AgentStops(key));
            }
            if instance.is_alive() && instance.agent == Agent::Runs && left.ends > 0 {
                acts.push(Act::PodEnds(key));
            }
        }
        if self.bounds.deletes {
            match system.pod.wish {
                Wish::Run => acts.push(Act::Delete),
                Wish::Deleted if self.bounds.forces => acts.push(Act::ForceDelete),
                Wish::Deleted => {}
                Wish::Gone => {}
            }
        }
        if self.bounds.deletes && self.bounds.forces && system.pod.wish == Wish::Run {
            acts.push(Act::ForceDelete);
        }
        if left.hands > 0 && system.record.is_some() {
            acts.push(Act::RemoveRecord);
        }
        if left.hours > 0 {
            acts.push(Act::Hour);
        }
    }

    fn possible_to(&self, system: &System, index: u8, controller: &Controller, acts: &mut Vec<Act>) {
        let left = &system.left;
        if left.crashes > 0 {
            acts.push(Act::Crash(index));
        }
        if let Some(next) = controller.todo.first() {
            acts.push(Act::Next(index));
            if matches!(next, Do::Save(_)) && left.lost_saves > 0 {
                acts.push(Act::SaveUnheard(index));
            }
            return;
        }
        if told_next(system.pod, controller).is_some() {
            acts.push(Act::Tell(index));
        }
        if controller.wakes {
            acts.push(Act::Wake(index));
        }
        for key in &controller.follows {
            if system
                .instance(*key)
                .is_some_and(|instance| instance.is_reachable())
            {
                // Agents report now and then also when nothing changed.
                acts.push(Act::Report(index, *key));
                if left.cuts > 0 {
                    acts.push(Act::Cut(index, *key));
                }
            } else {
                acts.push(Act::Cut(index, *key));
            }
        }
        if left.sweeps > 0 {
            acts.push(Act::Sweep(index));
        }
    }

    fn has_instance(&self, system: &System, index: u8, key: Key) -> bool {
        let state = system
            .controller(index)
            .filter(|c| c.is_free())
            .and_then(|controller| controller.state);
        state.is_some_and(|state| self.mind().facts(state).instance == Some(key))
    }

    /// What follows. None when nothing changes.
    pub(crate) fn after(&self, system: &System, act: Act) -> Option<System> {
        let mut next = system.clone();
        match act {
            Act::Start(index) => {
                next.left.starts -= 1;
                self.start(&mut next, index);
            }
            Act::Crash(index) => {
                next.left.crashes -= 1;
                next.controllers[usize::from(index)] = None;
                next.calls.retain_mut(|call| {
                    if call.owner == Some(index) {
                        call.owner = None;
                        return matches!(call.what, Progress::Sent(what) if what.outlives_its_caller());
                    }
                    true
                });
            }
            Act::Tell(index) => self.tell(&mut next, index),
            Act::Next(index) => self.do_next(&mut next, index),
            Act::SaveUnheard(index) => {
                next.left.lost_saves -= 1;
                let controller = next.controller(index)?;
                let Some(Do::Save(record)) = controller.todo.first().copied() else {
                    return None;
                };
                let is_free_to_write = match controller.stored {
                    Some(_) => controller.is_current,
                    None => next.record.is_none(),
                };
                if !is_free_to_write {
                    return None;
                }
                self.write(&mut next, record);
                next.outdate(None);
            }
            Act::Wake(index) => self.hear(&mut next, index, News::Woke),
            Act::Carry(call, how) => self.carry(&mut next, call, how),
            Act::Deliver(call) => {
                next.drop_call(call);
                if let (Some(index), Progress::Replied(news)) = (call.owner, call.what) {
                    self.hear(&mut next, index, news);
                }
            }
            Act::Report(index, key) => {
                let agent = next.instance(key)?.agent;
                self.hear(&mut next, index, News::Reported(key, agent));
            }
            Act::Cut(index, key) => {
                if next.instance(key).is_some_and(|instance| instance.is_reachable()) {
                    next.left.cuts -= 1;
                }
                next.controller_mut(index)?
                    .follows
                    .retain(|followed| *followed != key);
                self.hear(&mut next, index, News::Disconnected(key));
            }
            Act::Interrupt(key, told) => {
                next.left.interruptions -= 1;
                next.instance_mut(key)?.is_doomed = true;
                if let Some(index) = told {
                    self.hear(&mut next, index, News::Interrupted(key));
                }
            }
            Act::Boots(key) => next.instance_mut(key)?.life = Life::Up,
            Act::Dies(key) => {
                let instance = next.instance_mut(key)?;
                instance.life = Life::Gone;
                if !instance.is_doomed {
                    next.left.deaths -= 1;
                }
            }
            Act::Vanishes(key) => next.instance_mut(key)?.life = Life::Gone,
            Act::AgentStops(key) => {
                next.instance_mut(key)?.agent = Agent::Ended { stopped: true };
            }
            Act::PodEnds(key) => {
                next.left.ends -= 1;
                next.instance_mut(key)?.agent = Agent::Ended { stopped: false };
            }
            // A pod that has ended is removed without grace.
            Act::Delete if next.pod.has_ended => next.pod.wish = Wish::Gone,
            Act::Delete => next.pod.wish = Wish::Deleted,
            Act::ForceDelete => next.pod.wish = Wish::Gone,
            Act::RemoveRecord => {
                next.left.hands -= 1;
                next.record = None;
                next.outdate(None);
            }
            Act::Hour => {
                next.left.hours -= 1;
                self.hour(&mut next);
            }
            Act::Sweep(index) => {
                next.left.sweeps -= 1;
                self.sweep(&mut next, index);
            }
        }
        self.run_on(&mut next);
        // Two controllers are alike, so only one order of them is looked at.
        if next.controllers[0] < next.controllers[1] {
            next.controllers.swap(0, 1);
            for call in &mut next.calls {
                call.owner = call.owner.map(|owner| 1 - owner);
            }
        }
        next.calls.sort_unstable();
        (next != *system).then_some(next)
    }

    /// Does what nobody else can see: to start a call is not to have it carried out, and what is in an inbox is heard in its order whatever
    /// happens meanwhile. So each controller goes on until it has to store or remove its record, or waits.
    fn run_on(&self, system: &mut System) {
        for index in 0..2 {
            while let Some(controller) = system.controllers[usize::from(index)].as_mut() {
                match controller.todo.first() {
                    Some(Do::Save(_) | Do::Remove) => break,
                    Some(_) => self.do_next(system, index),
                    None if controller.inbox.is_empty() => break,
                    None => {
                        let news = controller.inbox.remove(0);
                        self.hear(system, index, news);
                    }
                }
            }
        }
    }

    /// Steps a controller's machine.
    pub(crate) fn hear(&self, system: &mut System, index: u8, news: News) {
        let Some(controller) = system.controllers[usize::from(index)].as_mut() else {
            return;
        };
        let Some(state) = controller.state else {
            return; // Forgotten: there is nobody to hear it.
        };
        let outcome = self.mind().step(state, news);
        // Kept for as long as it may be put back.
        controller.before = matches!(outcome.todo.first(), Some(Do::Save(_))).then_some(state);
        controller.state = Some(outcome.state);
        controller.todo = outcome.todo;
        controller.wakes = outcome.wakes;
        if outcome.has_news {
            system.outdate_reports(index);
        }
        if matches!(news, News::Published { .. }) && self.mind().facts(outcome.state).is_unpublished {
            system.begin(index, What::Publish);
        }
    }

    fn do_next(&self, system: &mut System, index: u8) {
        let has_started = system.pod.has_started;
        let Some(controller) = system.controller_mut(index) else {
            return;
        };
        let next = controller.todo.remove(0);
        let put_back = controller.before.take();
        match next {
            Do::Save(record) => self.save(system, index, record, put_back),
            Do::Remove => self.remove(system, index),
            // The sizer answers at once.
            Do::Place if self.bounds.offerings == 1 => controller.inbox.push(News::Placed(0)),
            Do::Place => system.begin(index, What::Place),
            Do::Launch(key) => {
                if !system.intents.contains(&key) {
                    system.broken = Some(Broken::LaunchedWithoutIntent);
                }
                system.begin(index, What::Launch(key));
            }
            Do::Find(key) => system.begin(index, What::Find(key)),
            Do::Observe(key) => system.begin(index, What::Observe(key)),
            Do::Terminate(key) => system.begin(index, What::Terminate(key)),
            Do::Deploy(key) => {
                if system.pod.ended_by_itself {
                    system.broken = Some(Broken::RanAgainAfterItsEnd);
                }
                system.begin(index, What::Deploy(key));
            }
            Do::Stop(key) => system.begin(index, What::Stop(key)),
            Do::Release => system.begin(index, What::Release),
            Do::Publish => {
                let call = Call {
                    owner: Some(index),
                    what: Progress::Sent(What::Publish),
                };
                let noted = controller.state.and_then(|state| {
                    let mut mind = self.mind();
                    let says_nothing_new =
                        mind.is_ordinary(state) && has_started >= mind.facts(state).started;
                    says_nothing_new.then(|| mind.noted(state))
                });
                if noted.is_some() {
                    controller.state = noted;
                } else if !system.calls.contains(&call) {
                    system.begin(index, What::Publish);
                }
            }
            Do::Connect(key) => {
                controller.follows.retain(|followed| *followed != key);
                controller.follows.push(key);
                controller.follows.sort_unstable();
            }
            Do::Disconnect(attempt) => controller.follows.retain(|key| key.attempt != attempt),
            Do::Forget => {
                let is_gone = controller
                    .state
                    .is_some_and(|state| self.mind().facts(state).is_gone);
                if controller.inbox.is_empty() || is_gone {
                    controller.forget();
                }
            }
        }
    }

    pub(crate) fn write(&self, system: &mut System, record: RecordId) {
        let mind = self.mind();
        if let Some(before) = system.record.map(|before| mind.record(before)) {
            let new = mind.record(record);
            let is_taken_back = before.attempt == new.attempt && before.phase > new.phase;
            if before.attempt > new.attempt || is_taken_back {
                system.broken = Some(Broken::Undone);
            }
        }
        system.record = Some(record);
        let key = mind.key_of(mind.record(record));
        if !system.intents.contains(&key) {
            system.intents.push(key);
            system.intents.sort_unstable();
        }
    }

    /// `persist.rs`, `save`.
    fn save(&self, system: &mut System, index: u8, record: RecordId, put_back: Option<StateId>) {
        let Some(controller) = system.controllers[usize::from(index)].as_ref() else {
            return;
        };
        if self.bounds.defect == Some(Defect::ActBeforeSave) {
            // Acts first; stores when it has the time, which here is never before it dies.
            return;
        }
        let (basis, is_current) = (controller.stored, controller.is_current);
        let overwrites = self.bounds.defect == Some(Defect::OverwriteOnConflict);
        let is_first_intent = basis.is_none() && self.mind().record(record).phase == CellPhase::Launching;
        if is_first_intent && !system.pod.exists() {
            // `outdates` in `fence.rs`: nobody else's record stands in its way, so the pod is read first.
            if let Some(controller) = system.controller_mut(index) {
                controller.todo.clear();
                controller.state = put_back.or(controller.state);
                controller.inbox.push(News::Gone);
            }
            return;
        }
        let theirs = match (system.record, basis) {
            (Some(_), Some(_)) if is_current => None,
            (None, None) => None,
            (None, Some(_)) => {
                if !system.pod.exists() {
                    return self.go_on_without(system, index, record);
                }
                None
            }
            (Some(theirs), _) if self.mind().is_same(theirs, record) => {
                let controller = system.controllers[usize::from(index)].as_mut();
                if let Some(controller) = controller {
                    controller.stored = Some(theirs);
                    controller.is_current = true;
                }
                return;
            }
            (Some(theirs), Some(basis)) if self.mind().is_same(theirs, basis) => None,
            (Some(_), _) if overwrites => None,
            (Some(theirs), _) => Some(theirs),
        };
        match theirs {
            None => {
                self.write(system, record);
                system.outdate(Some(index));
                if let Some(controller) = system.controller_mut(index) {
                    controller.stored = Some(record);
                    controller.is_current = true;
                }
            }
            Some(theirs) => self.follow(system, index, theirs),
        }
    }

    /// `follow.rs`, `follow_record`.
    pub(crate) fn follow(&self, system: &mut System, index: u8, theirs: RecordId) {
        self.fenced.fetch_add(1, Ordering::Relaxed);
        self.begin_again(system, index, theirs);
        if let Some(controller) = system.controller_mut(index) {
            controller.stored = Some(theirs);
            controller.is_current = true;
        }
    }

    /// `follow.rs`, `publish_anew`.
    pub(crate) fn publish_anew(&self, system: &mut System, index: u8) {
        let mut mind = self.mind();
        let Some(controller) = system.controllers[usize::from(index)].as_mut() else {
            return;
        };
        let Some(state) = controller.state.filter(|state| mind.is_told(*state)) else {
            return;
        };
        controller.state = Some(mind.unpublished(state));
        drop(mind);
        system.outdate_reports(index);
        let call = Call {
            owner: Some(index),
            what: Progress::Sent(What::Publish),
        };
        if !system.calls.contains(&call) {
            system.begin(index, What::Publish);
        }
    }

    fn begin_again(&self, system: &mut System, index: u8, record: RecordId) {
        if let Some(controller) = system.controller_mut(index)
            && let Some(state) = controller.state
        {
            controller.state = Some(self.mind().follow(state, record));
            controller.todo.clear();
            controller.follows.clear();
            controller.wakes = false;
            controller.stored = None;
            controller.is_current = false;
            controller.inbox.push(News::Woke);
        }
        self.publish_anew(system, index);
    }

    fn go_on_without(&self, system: &mut System, index: u8, record: RecordId) {
        let is_terminating = self.mind().record(record).ending.is_some();
        if is_terminating {
            if let Some(controller) = system.controller_mut(index) {
                controller.stored = None;
                controller.is_current = false;
                // Or it would go on to another attempt.
                controller.inbox.push(News::Gone);
            }
            return;
        }
        self.begin_again(system, index, record);
        if let Some(controller) = system.controller_mut(index) {
            controller.inbox.push(News::Gone);
        }
    }

    /// `persist.rs`, `remove`.
    fn remove(&self, system: &mut System, index: u8) {
        let Some(controller) = system.controllers[usize::from(index)].as_ref() else {
            return;
        };
        let Some(stored) = controller.stored else {
            return;
        };
        if let Some(theirs) = system.record {
            if !controller.is_current && !self.mind().is_same(theirs, stored) {
                return self.follow(system, index, theirs);
            }
            if self.names_living(system, theirs) {
                system.broken = Some(Broken::RemovedWhileAlive);
            }
            system.record = None;
            system.outdate(None);
        }
        if let Some(controller) = system.controller_mut(index) {
            controller.stored = None;
            controller.is_current = false;
        }
    }

    fn names_living(&self, system: &System, record: RecordId) -> bool {
        let mind = self.mind();
        let record = mind.record(record);
        let replaced = record.replaces.as_ref().map(|replaced| &replaced.instance);
        record.instance.iter().chain(replaced).any(|id| {
            system
                .instance(key_of_id(id))
                .is_some_and(|instance| instance.is_alive())
        })
    }

    fn tell(&self, system: &mut System, index: u8) {
        let Some(controller) = system.controllers[usize::from(index)].as_mut() else {
            return;
        };
        let Some((told, news)) = told_next(system.pod, controller) else {
            return;
        };
        controller.told = told;
        if controller.state.is_none() {
            if told == Told::Gone {
                return;
            }
            controller.state = Some(self.mind().fresh());
        }
        self.hear(system, index, news);
    }

    /// `recovery.rs`, `recover_all`.
    fn start(&self, system: &mut System, index: u8) {
        let mut controller = Controller {
            state: None,
            before: None,
            wakes: false,
            stored: None,
            is_current: false,
            todo: Vec::new(),
            inbox: Vec::new(),
            told: Told::Nothing,
            follows: Vec::new(),
        };
        if system.record.is_none() {
            let owned = system
                .cloud
                .iter()
                .filter(|instance| matches!(instance.life, Life::Boots | Life::Up) && !instance.is_hidden);
            let of_pod = owned.map(|instance| instance.view()).collect();
            let record = self.mind().record_of(of_pod);
            if let Some(record) = record {
                self.write(system, record);
                system.outdate(None);
            }
        }
        if let Some(record) = system.record {
            let found = self.found(system, record);
            controller.state = Some(self.mind().recover(record, found));
            controller.stored = Some(record);
            controller.is_current = true;
            controller.inbox.push(News::Woke);
        }
        system.controllers[usize::from(index)] = Some(controller);
    }

    /// The instance that the cloud lists for a record.
    fn found(&self, system: &System, record: RecordId) -> Option<View> {
        let mind = self.mind();
        let record = mind.record(record);
        let key = match &record.instance {
            Some(id) => key_of_id(id),
            None => mind.key_of(record),
        };
        system
            .instance(key)
            .filter(|instance| instance.is_alive() && !instance.is_hidden)
            .map(|instance| instance.view())
    }

    fn hour(&self, system: &mut System) {
        let mut mind = self.mind();
        let mind: &mut Mind = &mut mind;
        system.record = system.record.map(|record| mind.older_record(record));
        for controller in system.controllers.iter_mut().flatten() {
            controller.state = controller.state.map(|state| mind.older(state));
            controller.before = controller.before.map(|state| mind.older(state));
            controller.stored = controller.stored.map(|record| mind.older_record(record));
            for todo in &mut controller.todo {
                if let Do::Save(record) = todo {
                    *record = mind.older_record(*record);
                }
            }
        }
        for instance in &mut system.cloud {
            instance.is_hidden = false;
            instance.is_young = false;
            if instance.is_doomed {
                instance.life = Life::Gone;
            }
        }
    }
}

/// What the source would tell a controller now, if it has not: `kubelet/pods.rs`, `intent`.
pub(crate) fn told_next(pod: PodObject, controller: &Controller) -> Option<(Told, News)> {
    match (controller.told, pod.wish) {
        (Told::Nothing, Wish::Gone) => None,
        (Told::Nothing, Wish::Run) if pod.has_ended => Some((Told::Gone, News::Gone)),
        (Told::Nothing, Wish::Run) => Some((
            Told::Run,
            News::Run {
                started_before: pod.has_started,
            },
        )),
        (Told::Run, Wish::Run) => None,
        (Told::Nothing | Told::Run, Wish::Deleted) => Some((Told::Deleted, News::Deleted)),
        (Told::Run | Told::Deleted, Wish::Gone) => Some((Told::Gone, News::Gone)),
        (Told::Deleted, Wish::Run | Wish::Deleted) | (Told::Gone, _) => None,
    }
}
