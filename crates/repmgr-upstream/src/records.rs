//! What repmgr's records say against a node that is to be made.

use repmgr_types::{Conninfo, Hint, Remedy};

use crate::params::Target;
use crate::{NodeRecord, Problem, Severity};

/// A node that is to be made, as its own configuration describes it.
#[derive(Debug, Clone, Copy)]
pub struct NewNode<'a> {
    /// `node_id`.
    pub id: i32,
    /// `node_name`.
    pub name: &'a str,
    /// How other nodes will connect to it, if that is known.
    pub conninfo: Option<&'a Conninfo>,
}

impl NewNode<'_> {
    /// Whether `record` is this node's: the same id and name. The address may be another, as of a node
    /// that is built anew on another host.
    pub fn is_recorded_as(&self, record: &NodeRecord) -> bool {
        record.node_id == self.id && record.node_name == self.name
    }

    /// What to warn of: its id is another node's, its record leads elsewhere, or its connection string
    /// leads to another node.
    pub fn problems(&self, records: &[NodeRecord]) -> Vec<Problem> {
        let own_id = records.iter().filter(|record| record.node_id == self.id);
        let other_node = own_id.filter_map(|record| {
            if self.is_recorded_as(record) {
                self.moved(record)
            } else {
                Some(self.other_node(record))
            }
        });
        let same_server = records
            .iter()
            .filter(|record| record.node_id != self.id)
            .filter(|record| {
                self.conninfo
                    .and_then(|conninfo| is_same_server(conninfo, &record.conninfo))
                    == Some(true)
            })
            .map(|record| self.same_server(record));
        other_node.chain(same_server).collect()
    }

    /// Either this node moved, or its configuration was copied from the other and only `conninfo` changed.
    fn moved(&self, record: &NodeRecord) -> Option<Problem> {
        let conninfo = self.conninfo?;
        (is_same_server(conninfo, &record.conninfo) == Some(false)).then(|| Problem {
            severity: Severity::Warning,
            message: format!(
                "node \"{}\" (node_id {}) is recorded with another address",
                record.node_name, record.node_id
            ),
            detail: Some(format!("the record: {}; this node: {conninfo}", record.conninfo)),
            hint: Some(
                Hint::new("if the recorded node still exists and is not this one, choose another ")
                    .remedy(Remedy::NodeId)
                    .words(" and another node name"),
            ),
        })
    }

    fn other_node(&self, record: &NodeRecord) -> Problem {
        Problem {
            severity: Severity::Warning,
            message: format!("node_id {} belongs to another node", self.id),
            detail: Some(format!(
                "the record: {}; this node: {}",
                described(&record.node_name, Some(&record.conninfo)),
                described(self.name, self.conninfo)
            )),
            hint: Some(
                Hint::new("unless this node takes the place of the other, choose another ")
                    .remedy(Remedy::NodeId),
            ),
        }
    }

    fn same_server(&self, record: &NodeRecord) -> Problem {
        let kind = &record.node_type;
        Problem {
            severity: Severity::Warning,
            message: format!(
                "the connection string of this node leads to {kind} node \"{}\" (node_id {})",
                record.node_name, record.node_id
            ),
            detail: Some(format!(
                "the record: {}; this node: {}",
                described(&record.node_name, Some(&record.conninfo)),
                described(self.name, self.conninfo)
            )),
            hint: Some(
                "set \"conninfo\" to how the other nodes will reach this one, before it is registered".into(),
            ),
        }
    }
}

fn described(name: &str, conninfo: Option<&Conninfo>) -> String {
    match conninfo {
        Some(conninfo) => format!("\"{name}\", {conninfo}"),
        None => format!("\"{name}\""),
    }
}

/// Whether both strings lead to one server, by host, address and port as libpq pairs them; `None` if one
/// names none. Names are compared, not looked up.
fn is_same_server(a: &Conninfo, b: &Conninfo) -> Option<bool> {
    let (a, b) = (Target::of_string(a)?, Target::of_string(b)?);
    Some(a.iter().any(|a| b.iter().any(|b| a.is_same(b))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(node_id: i32, node_name: &str, conninfo: &str) -> NodeRecord {
        NodeRecord {
            node_id,
            upstream_node_id: None,
            active: true,
            node_name: node_name.to_owned(),
            node_type: "primary".to_owned(),
            location: "default".to_owned(),
            priority: 100,
            conninfo: Conninfo::parse(conninfo).unwrap(),
            repluser: "repmgr".to_owned(),
            slot_name: None,
            config_file: "/etc/repmgr.conf".to_owned(),
        }
    }

    #[test]
    fn servers_are_compared_by_what_libpq_makes_of_their_strings() {
        let same =
            |a: &str, b: &str| is_same_server(&Conninfo::parse(a).unwrap(), &Conninfo::parse(b).unwrap());
        for (a, b, expected) in [
            ("host=n1 user=a", "host=N1. port=5432 user=b dbname=c", Some(true)),
            ("host=n1", "host=n2", Some(false)),
            ("host=n1 port=5433", "host=n1", Some(false)),
            ("host=localhost", "host=127.0.0.1", Some(true)),
            ("host=10.0.0.1", "hostaddr=10.0.0.1", Some(true)),
            (
                "host=n1 hostaddr=10.0.0.1",
                "host=n1 hostaddr=10.0.0.2",
                Some(false),
            ),
            ("host=n1 hostaddr=10.0.0.1", "host=n1", Some(true)),
            ("host=::1", "host=0:0::1", Some(true)),
            ("host=n0,n1 port=1,2", "host=n1 port=2", Some(true)),
            ("host=n0,n1 port=1,2", "host=n1 port=1", Some(false)),
            ("host=/run/a", "host=/run/a", Some(true)),
            ("host=/run/a", "host=a", Some(false)),
            ("user=a", "host=n1", None),
            ("host=n1 port=nonsense", "host=n1", None),
        ] {
            assert_eq!(same(a, b), expected, "{a} {b}");
            assert_eq!(same(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn an_id_of_another_node_and_a_string_to_another_are_told() {
        let primary = record(1, "node1", "host=n1 user=repmgr password=s3cret");
        let mine = Conninfo::parse("host=n2").unwrap();
        let node = NewNode {
            id: 2,
            name: "node2",
            conninfo: Some(&mine),
        };
        let messages = |node: NewNode<'_>, other: &NodeRecord| {
            let problems = node.problems(&[primary.clone(), other.clone()]);
            assert!(!format!("{problems:?}").contains("s3cret"));
            problems.into_iter().map(|p| p.message).collect::<Vec<_>>()
        };
        assert_eq!(messages(node, &record(2, "node2", "host=n2 user=x")), [""; 0]);
        assert_eq!(messages(node, &record(3, "node3", "host=n3")), [""; 0]);
        let taken = ["node_id 2 belongs to another node"];
        assert_eq!(messages(node, &record(2, "node9", "host=n2")), taken);
        assert_eq!(
            messages(node, &record(2, "node2", "host=n9")),
            ["node \"node2\" (node_id 2) is recorded with another address"]
        );
        let unknown = NewNode {
            conninfo: None,
            ..node
        };
        assert_eq!(messages(unknown, &record(2, "node2", "host=n9")), [""; 0]);
        let wrong = NewNode {
            conninfo: Some(&primary.conninfo),
            ..node
        };
        assert_eq!(
            messages(wrong, &record(3, "node3", "host=n3")),
            ["the connection string of this node leads to primary node \"node1\" (node_id 1)"]
        );
    }
}
