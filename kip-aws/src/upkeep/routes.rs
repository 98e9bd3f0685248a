//! Which routes there should be, and what makes those that are into them.

use std::collections::{BTreeMap, BTreeSet};

use kip_core::error::{Error, ErrorKind, Result};

use crate::environment::Cidr;

/// The tag of an instance that says which ranges are routed to it, so that any controller can see to it.
pub(crate) const TAG: &str = "kip.elotl.co/routes";

/// Whether EC2 can route these ranges to an instance.
///
/// # Errors
/// `InvalidRequest` with the range that cannot be.
pub(crate) fn check(ranges: &BTreeSet<String>) -> Result<()> {
    for text in ranges {
        let refused = |reason: String| {
            let message = format!("pod.elotl.co/cloud-route: {reason}");
            Error::new(ErrorKind::InvalidRequest, "launch", message)
        };
        let range: Cidr = text.parse().map_err(refused)?;
        if !range.is_v4() {
            return Err(refused(format!("`{text}`: cells have addresses of IPv4 only")));
        }
    }
    Ok(())
}

/// The value of [`TAG`] for ranges that were checked.
pub(crate) fn tag_value(ranges: &BTreeSet<String>) -> String {
    let ranges: Vec<String> = ranges
        .iter()
        .filter_map(|text| text.parse::<Cidr>().ok())
        .map(|range| range.to_string())
        .collect();
    ranges.join(" ")
}

/// An instance of ours that has routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) id: String,
    pub(super) subnet: String,
    /// Its network interface, while it has one.
    pub(super) interface: Option<String>,
    pub(super) ranges: Vec<Cidr>,
    /// Whether it runs or is about to.
    pub(super) is_alive: bool,
    /// Whether it takes packets that are not for its own addresses.
    pub(super) forwards: bool,
}

/// A route table of the VPC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) id: String,
    pub(super) is_main: bool,
    /// The subnets that name it.
    pub(super) subnets: BTreeSet<String>,
    pub(super) routes: BTreeMap<Cidr, Target>,
}

/// Where a route goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To an instance.
    Instance(String),
    /// To this network interface, which is not there any more or at no instance.
    Nowhere(String),
    /// To something else, by its id.
    Other(String),
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Let an instance take packets that are not for its own addresses.
    Forward { instance: String },
    /// Make a route.
    Create {
        table: String,
        range: Cidr,
        instance: String,
    },
    /// Turn a dead route to another instance. `strange` is the network interface it led to, when that is not known to have been a cell's.
    Replace {
        table: String,
        range: Cidr,
        instance: String,
        strange: Option<String>,
    },
    /// Remove a route of an instance that is gone.
    Delete { table: String, range: Cidr },
    /// Nothing can be done: the range goes elsewhere.
    Blocked {
        table: String,
        range: Cidr,
        instance: String,
        by: String,
    },
    /// Nothing can be done: the instance's subnet has no route table.
    Lost { instance: String, subnet: String },
}

/// The network interfaces that cells with routes were seen to have, each with its instance. A route to an instance that is gone shows only
/// the interface, and that is all by which it can be told from somebody else's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interfaces(BTreeMap<String, String>);

impl Interfaces {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn knows(&self, interface: &str) -> bool {
        self.0.contains_key(interface)
    }

    /// Learns those of the cells.
    pub(super) fn learn(&mut self, cells: &[Cell]) {
        for cell in cells {
            if let Some(interface) = &cell.interface {
                self.0.insert(interface.clone(), cell.id.clone());
            }
        }
    }

    /// Forgets those whose instance is not shown any more and that no route leads to.
    pub(super) fn forget(&mut self, cells: &[Cell], tables: &[Table]) {
        let dead: BTreeSet<&str> = tables
            .iter()
            .flat_map(|table| table.routes.values())
            .filter_map(|target| match target {
                Target::Nowhere(interface) => Some(interface.as_str()),
                Target::Instance(_) | Target::Other(_) => None,
            })
            .collect();
        let shown: BTreeSet<&str> = cells.iter().map(|cell| cell.id.as_str()).collect();
        self.0.retain(|interface, instance| {
            dead.contains(interface.as_str()) || shown.contains(instance.as_str())
        });
    }
}

/// What to do. Pure and idempotent: done, it plans nothing but what is blocked.
///
/// Of several instances that want a range in one table the one that has it keeps it, else the first by id takes it. A route is touched only
/// when it goes to an instance of ours, or nowhere: one to an interface that is not known to have been a cell's is never removed, and turned only to
/// a cell that asks for exactly its range.
pub(super) fn plan(cells: &[Cell], tables: &[Table], interfaces: &Interfaces) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut wanted: BTreeMap<(&str, Cidr), Vec<&Cell>> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| cell.is_alive) {
        if !cell.forwards {
            steps.push(Step::Forward {
                instance: cell.id.clone(),
            });
        }
        match table_of(tables, &cell.subnet) {
            Some(table) => {
                for range in &cell.ranges {
                    wanted.entry((table.id.as_str(), *range)).or_default().push(cell);
                }
            }
            None => steps.push(Step::Lost {
                instance: cell.id.clone(),
                subnet: cell.subnet.clone(),
            }),
        }
    }
    let ended: BTreeSet<&str> = cells
        .iter()
        .filter(|cell| !cell.is_alive)
        .map(|cell| cell.id.as_str())
        .collect();
    for table in tables {
        for (range, target) in &table.routes {
            let is_dead_of_ours = match target {
                Target::Instance(id) => ended.contains(id.as_str()),
                Target::Nowhere(interface) => interfaces.knows(interface),
                Target::Other(_) => false,
            };
            if is_dead_of_ours && !wanted.contains_key(&(table.id.as_str(), *range)) {
                steps.push(Step::Delete {
                    table: table.id.clone(),
                    range: *range,
                });
            }
        }
    }
    for ((id, range), mut cells) in wanted {
        cells.sort_by(|a, b| a.id.cmp(&b.id));
        let actual = tables
            .iter()
            .find(|table| table.id == id)
            .and_then(|table| table.routes.get(&range));
        let strange = match actual {
            Some(Target::Nowhere(interface)) if !interfaces.knows(interface) => Some(interface.clone()),
            _ => None,
        };
        steps.extend(settle(id, range, &cells, actual, &ended, strange));
    }
    steps
}

fn settle(
    table: &str,
    range: Cidr,
    cells: &[&Cell],
    actual: Option<&Target>,
    ended: &BTreeSet<&str>,
    strange: Option<String>,
) -> Vec<Step> {
    let table = table.to_owned();
    let holder = match actual {
        Some(Target::Instance(id)) if cells.iter().any(|cell| cell.id == *id) => Some(id.clone()),
        _ => None,
    };
    let first = cells.first().map(|cell| cell.id.clone()).unwrap_or_default();
    let taken_by = match (actual, &holder) {
        (_, Some(holder)) => holder.clone(),
        (Some(Target::Instance(id)), None) if !ended.contains(id.as_str()) => id.clone(),
        (Some(Target::Other(id)), None) => id.clone(),
        _ => first.clone(),
    };
    let mut steps = Vec::new();
    if holder.is_none() && taken_by == first {
        let (table, instance) = (table.clone(), first);
        steps.push(match actual {
            None => Step::Create {
                table,
                range,
                instance,
            },
            Some(_) => Step::Replace {
                table,
                range,
                instance,
                strange,
            },
        });
    }
    steps.extend(
        cells
            .iter()
            .filter(|cell| cell.id != taken_by)
            .map(|cell| Step::Blocked {
                table: table.clone(),
                range,
                instance: cell.id.clone(),
                by: taken_by.clone(),
            }),
    );
    steps
}

/// The route table of a subnet: the one it names, else the VPC's main one. Source: "Configure route tables", Amazon VPC User Guide.
fn table_of<'a>(tables: &'a [Table], subnet: &str) -> Option<&'a Table> {
    tables
        .iter()
        .find(|table| table.subnets.contains(subnet))
        .or_else(|| tables.iter().find(|table| table.is_main))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn cell(id: &str, ranges: &[&str], is_alive: bool) -> Cell {
        Cell {
            id: id.into(),
            subnet: "subnet-a".into(),
            interface: is_alive.then(|| id.replace("i-", "eni-")),
            ranges: ranges.iter().map(|text| range(text)).collect(),
            is_alive,
            forwards: true,
        }
    }

    fn table(routes: &[(&str, Target)]) -> Table {
        Table {
            id: "rtb-main".into(),
            is_main: true,
            subnets: BTreeSet::new(),
            routes: routes
                .iter()
                .map(|(text, to)| (range(text), to.clone()))
                .collect(),
        }
    }

    fn to(id: &str) -> Target {
        Target::Instance(id.into())
    }

    const NET: &str = "10.9.0.0/16";

    #[test]
    fn a_range_leads_to_the_cell_that_asked_and_nobody_elses_route_is_touched() {
        let create = |instance: &str| Step::Create {
            table: "rtb-main".into(),
            range: range(NET),
            instance: instance.into(),
        };
        let replace = |instance: &str, strange: Option<&str>| Step::Replace {
            table: "rtb-main".into(),
            range: range(NET),
            instance: instance.into(),
            strange: strange.map(str::to_owned),
        };
        let nowhere = |interface: &str| Target::Nowhere(interface.into());
        let blocked = |instance: &str, by: &str| Step::Blocked {
            table: "rtb-main".into(),
            range: range(NET),
            instance: instance.into(),
            by: by.into(),
        };
        let delete = Step::Delete {
            table: "rtb-main".into(),
            range: range(NET),
        };
        let (one, two) = (cell("i-1", &[NET], true), cell("i-2", &[NET], true));
        let gone = cell("i-0", &[NET], false);
        let mut interfaces = Interfaces::default();
        interfaces.learn(&[cell("i-0", &[NET], true)]);
        type Case = (&'static str, Vec<Cell>, Vec<(&'static str, Target)>, Vec<Step>);
        let cases: [Case; 11] = [
            ("new", vec![one.clone()], vec![], vec![create("i-1")]),
            ("there", vec![one.clone()], vec![(NET, to("i-1"))], vec![]),
            (
                "the one before is gone",
                vec![gone.clone(), one.clone()],
                vec![(NET, to("i-0"))],
                vec![replace("i-1", None)],
            ),
            (
                "the one before is long gone",
                vec![one.clone()],
                vec![(NET, nowhere("eni-0"))],
                vec![replace("i-1", None)],
            ),
            (
                "nobody knows where it led to, and a cell asks for it",
                vec![one.clone()],
                vec![(NET, nowhere("eni-9"))],
                vec![replace("i-1", Some("eni-9"))],
            ),
            (
                "long gone, and nobody wants it",
                vec![],
                vec![(NET, nowhere("eni-0")), ("10.8.0.0/16", nowhere("eni-9"))],
                vec![delete.clone()],
            ),
            (
                "gone",
                vec![gone.clone()],
                vec![(NET, to("i-0")), ("10.8.0.0/16", to("i-9"))],
                vec![delete],
            ),
            (
                "another's instance",
                vec![one.clone()],
                vec![(NET, to("i-9"))],
                vec![blocked("i-1", "i-9")],
            ),
            (
                "a gateway",
                vec![one.clone()],
                vec![(NET, Target::Other("vgw-1".into()))],
                vec![blocked("i-1", "vgw-1")],
            ),
            (
                "two at once",
                vec![two.clone(), one.clone()],
                vec![],
                vec![create("i-1"), blocked("i-2", "i-1")],
            ),
            (
                "the second has it",
                vec![one, two],
                vec![(NET, to("i-2"))],
                vec![blocked("i-1", "i-2")],
            ),
        ];
        for (name, cells, routes, expected) in cases {
            assert_eq!(plan(&cells, &[table(&routes)], &interfaces), expected, "{name}");
        }
        // Routes of nobody we know, dead or alive, are not ours to remove.
        let foreign = table(&[(NET, nowhere("eni-9")), ("10.8.0.0/16", to("i-9"))]);
        assert_eq!(plan(&[gone], &[foreign], &interfaces), vec![]);
    }

    /// Forgotten too early a dead route stays for ever; never forgotten they fill the memory.
    #[test]
    fn an_interface_is_known_until_its_instance_and_the_last_route_to_it_are_gone() {
        let mut interfaces = Interfaces::default();
        let one = cell("i-1", &[NET], true);
        interfaces.learn(std::slice::from_ref(&one));
        interfaces.forget(&[one], &[]);
        interfaces.forget(&[cell("i-1", &[NET], false)], &[]);
        interfaces.forget(&[], &[table(&[(NET, Target::Nowhere("eni-1".into()))])]);
        assert!(interfaces.knows("eni-1"));
        interfaces.forget(&[], &[table(&[])]);
        assert!(interfaces.is_empty());
    }

    /// The old Kip did nothing, and said nothing, for subnets that name no table.
    #[test]
    fn the_subnets_own_table_is_used_and_else_the_main_one() {
        let own = Table {
            id: "rtb-a".into(),
            subnets: BTreeSet::from(["subnet-a".to_owned()]),
            ..Table::default()
        };
        let one = cell("i-1", &[NET], true);
        let used = |tables: &[Table]| match plan(std::slice::from_ref(&one), tables, &Interfaces::default())
            .as_slice()
        {
            [Step::Create { table, .. }] => table.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(used(&[table(&[]), own]), "rtb-a");
        assert_eq!(used(&[table(&[])]), "rtb-main");
        assert!(matches!(
            plan(&[one], &[], &Interfaces::default()).as_slice(),
            [Step::Lost { .. }]
        ));
    }

    #[test]
    fn a_cell_that_drops_foreign_packets_is_told_not_to() {
        let mut one = cell("i-1", &[NET], true);
        one.forwards = false;
        let steps = plan(&[one], &[table(&[(NET, to("i-1"))])], &Interfaces::default());
        assert_eq!(
            steps,
            [Step::Forward {
                instance: "i-1".into()
            }]
        );
    }

    #[test]
    fn a_range_that_cannot_be_routed_is_refused_before_anything_is_bought() {
        let set = |text: &str| BTreeSet::from([text.to_owned()]);
        assert!(check(&set(NET)).is_ok());
        assert_eq!(tag_value(&set("10.9.1.2/16")), NET);
        for wrong in ["10.9.0.0", "fd00::/8"] {
            let error = check(&set(wrong)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(error.to_string().contains("cloud-route"), "{error}");
        }
    }
}
