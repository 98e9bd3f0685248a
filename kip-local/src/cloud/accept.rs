//! Accepting a launch: one token, one instance, written down before anything of it exists.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;

use jiff::Timestamp;
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::ids::InstanceId;
use kip_core::provider::LaunchRequest;

use super::record::{self, Record};
use super::{Held, Inner, State};
use crate::host::Addressing;

impl Inner {
    /// Finds the instance of a launch, or writes down a new one. Nothing else of it exists when this returns.
    pub(super) fn accept(
        &self,
        request: &LaunchRequest,
        at: Option<Addressing>,
    ) -> Result<(InstanceId, bool)> {
        const OP: &str = "launch";
        if let Some(at) = at {
            self.network.check(at)?;
        }
        let mut state = self.locked();
        if let Some(held) = state
            .instances
            .values()
            .find(|held| held.record.token == request.token)
        {
            if held.record.fingerprint != record::fingerprint(request) || held.record.at != at {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    OP,
                    "this token launched an instance with other parameters",
                )
                .with_context("token", &request.token)
                .with_context("instance", &held.record.id));
            }
            return Ok((held.record.id.clone(), false));
        }
        if let Some(limit) = self.catalogue.limit(&request.offering.instance_type) {
            let same = |held: &&Held| {
                let offering = &held.record.offering;
                offering.instance_type == request.offering.instance_type
                    && offering.zone == request.offering.zone
            };
            if state.instances.values().filter(same).count() >= limit {
                let message = format!("all {limit} instances of this type and zone are in use");
                return Err(Error::new(ErrorKind::InsufficientCapacity, OP, message)
                    .with_context("offering", &request.offering));
            }
        }
        let slot = self.free_slot(&state, at)?;
        let now = Timestamp::now();
        let mut record = Record::new(new_id(&state, request, now), request, slot, now);
        record.at = at;
        let folder = self.folder(&record.id);
        fs::create_dir_all(&folder)
            .and_then(|()| record::save_user_data(&folder, &request.user_data))
            .and_then(|()| record.save(&folder))
            .map_err(|source| {
                // Without a record it would be found as garbage later; better now.
                let _ = fs::remove_dir_all(&folder);
                Error::new(ErrorKind::Unexpected, OP, "cannot write to the data folder").with_source(source)
            })?;
        if at.is_none() {
            state.next_slot = (slot + 1) % self.network.subnet.slots();
        }
        let id = record.id.clone();
        let held = Held {
            record,
            busy: Arc::default(),
            removed: false,
        };
        state.instances.insert(id.clone(), held);
        Ok((id, true))
    }

    /// A pair of addresses that no instance has any of; for chosen ones, only that none has them.
    fn free_slot(&self, state: &State, at: Option<Addressing>) -> Result<u32> {
        const OP: &str = "launch";
        let taken: BTreeSet<Ipv4Addr> = state
            .instances
            .values()
            .map(|held| held.record.addressing(&self.network))
            .flat_map(|both| [both.management, both.pod])
            .collect();
        let is_free = |both: Addressing| !taken.contains(&both.management) && !taken.contains(&both.pod);
        if let Some(at) = at {
            if is_free(at) {
                return Ok(0);
            }
            let message = format!("{} or {} is another instance's address", at.management, at.pod);
            return Err(Error::new(ErrorKind::Conflict, OP, message));
        }
        let slots = self.network.subnet.slots();
        // In turn, so that an address is not used again at once.
        (0..slots)
            .map(|offset| (state.next_slot + offset) % slots)
            .find(|slot| is_free(self.network.addressing(*slot)))
            .ok_or_else(|| {
                let message = format!(
                    "all {slots} pairs of addresses of {} are in use",
                    self.network.subnet
                );
                Error::new(ErrorKind::QuotaExceeded, OP, message)
            })
    }
}

fn new_id(state: &State, request: &LaunchRequest, now: Timestamp) -> InstanceId {
    let mut salt = now.as_nanosecond();
    loop {
        let hash = hmac_sha256::HMAC::mac(salt.to_be_bytes(), request.token.as_str());
        let hex: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        let id = InstanceId::new(format!("i-{hex}"));
        if !state.instances.contains_key(&id) && !state.ended.contains_key(&id) {
            return id;
        }
        salt += 1;
    }
}
