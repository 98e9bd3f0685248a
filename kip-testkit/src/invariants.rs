//! What must hold at the end of every story, whatever went wrong in it.

use crate::world::World;

/// Nothing is left: no instance, no record, no pod object, no machine. Answers what is.
pub fn nothing_left(world: &World) -> Result<(), String> {
    let mut left = Vec::new();
    for instance in world.cloud.instances() {
        left.push(format!("instance {} ({:?})", instance.id, instance.phase));
    }
    for stored in world.store.stored() {
        left.push(format!("record {}", stored.name()));
    }
    if !world.source.is_empty() {
        left.push(format!("{} pod objects", world.source.len()));
    }
    if let Some(handle) = world.handle() {
        for cell in handle.snapshot() {
            left.push(format!("machine of {} in {}", cell.pod, cell.phase));
        }
    }
    if left.is_empty() {
        Ok(())
    } else {
        Err(left.join(", "))
    }
}

/// No pod was ever told to run on two living instances. Answers which was.
pub fn never_doubled(world: &World) -> Result<(), String> {
    let doubled = world.runtime.doubled();
    if doubled.is_empty() {
        Ok(())
    } else {
        Err(format!("told to run twice at the same time: {doubled:?}"))
    }
}
