//! What has to be done so that there is one cell for each instance. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use kip_core::ids::InstanceId;
use kip_local::Addressing;

/// An instance that EC2 shows as pending or running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) id: String,
    /// Its network interface.
    pub(crate) interface: String,
    pub(crate) management: Ipv4Addr,
    /// Its secondary private address, once it has one.
    pub(crate) pod: Option<Ipv4Addr>,
}

/// A cell on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) id: InstanceId,
    /// Which instance it is.
    pub(crate) instance: String,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Give an interface the secondary address that the launch asked for: moto does not.
    AssignPodAddress(String, Ipv4Addr),
    /// Boot the cell of an instance.
    Boot(String, Addressing),
    /// End a cell whose instance is on its way out.
    End(InstanceId),
    /// Say that the machine of an instance has shut itself down, which ends an instance of Kip.
    Terminate(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AssignPodAddress(interface, address) => write!(f, "assign {address} to {interface}"),
            Self::Boot(instance, at) => write!(f, "boot {instance} at {}", at.management),
            Self::End(cell) => write!(f, "end {cell}"),
            Self::Terminate(instance) => write!(f, "terminate {instance}"),
        }
    }
}

/// How far a pod's address is from its instance's, where EC2 gave none: into the half of the subnet (a /22) that moto gives out last.
const FAR: u32 = 512;

/// All there is to do now. `booted` are the instances that ever had a cell.
pub(crate) fn steps(shown: &[Shown], cells: &[Cell], booted: &BTreeSet<String>) -> Vec<Step> {
    let ends = cells
        .iter()
        .filter(|cell| shown.iter().all(|one| one.id != cell.instance))
        .map(|cell| Step::End(cell.id.clone()));
    let begins = shown
        .iter()
        .filter(|one| cells.iter().all(|cell| cell.instance != one.id))
        .map(|one| match one.pod {
            _ if booted.contains(&one.id) => Step::Terminate(one.id.clone()),
            None => Step::AssignPodAddress(one.interface.clone(), far(one.management)),
            Some(pod) => Step::Boot(
                one.id.clone(),
                Addressing {
                    management: one.management,
                    pod,
                },
            ),
        });
    ends.chain(begins).collect()
}

fn far(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) + FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(id: &str, pod: Option<Ipv4Addr>) -> Shown {
        Shown {
            id: id.into(),
            interface: format!("eni-{id}"),
            management: Ipv4Addr::new(100, 96, 0, 4),
            pod,
        }
    }

    /// Without one of these rules a test would talk to a dead cell, or to one of an instance nobody pays for.
    #[test]
    fn there_is_one_cell_for_each_instance_and_none_for_any_other() {
        let pod = Ipv4Addr::new(100, 96, 2, 4);
        let at = Addressing {
            management: Ipv4Addr::new(100, 96, 0, 4),
            pod,
        };
        let cell = |instance: &str| Cell {
            id: InstanceId::new(format!("cell-of-{instance}")),
            instance: instance.into(),
        };
        let booted = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        let cases = [
            (
                vec![shown("i-1", Some(pod))],
                vec![],
                booted(&[]),
                vec![Step::Boot("i-1".into(), at)],
            ),
            (
                vec![shown("i-1", None)],
                vec![],
                booted(&[]),
                vec![Step::AssignPodAddress("eni-i-1".into(), pod)],
            ),
            (
                vec![shown("i-1", Some(pod))],
                vec![cell("i-1")],
                booted(&["i-1"]),
                vec![],
            ),
            (
                vec![],
                vec![cell("i-1")],
                booted(&["i-1"]),
                vec![Step::End(InstanceId::new("cell-of-i-1"))],
            ),
            (
                vec![shown("i-1", Some(pod))],
                vec![],
                booted(&["i-1"]),
                vec![Step::Terminate("i-1".into())],
            ),
        ];
        for (shown, cells, booted, expected) in cases {
            assert_eq!(steps(&shown, &cells, &booted), expected);
        }
    }
}
