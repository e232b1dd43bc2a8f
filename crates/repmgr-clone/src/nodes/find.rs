//! The way to the source node, and what is known of the nodes where there is none.

use repmgr_barman::Barman;
use repmgr_types::Remedy;

use super::node::Nodes;
use crate::error::with_causes;
use crate::{CloneError, CloneRequest, Context, Hint, Method, Outcome, Remark, RemarkCode};

/// A session with the source node; where there can be none, what the Barman host can find out.
pub(crate) fn nodes(
    request: &CloneRequest,
    barman: &mut Barman,
    context: &Context<'_>,
) -> Result<Nodes, CloneError> {
    let mut failure = None;
    let recovered = matches!(request.outcome, Outcome::Recovered(_));
    if !request.upstream.no_connection && !recovered {
        match Nodes::connect(request.standby(), context) {
            Ok(nodes) => return Ok(nodes),
            Err(error) if error.is_unreachable() => failure = Some(CloneError::from(error)),
            Err(error) => return Err(error.into()),
        }
    }
    let mut nodes = match (&request.upstream.conninfo, &request.node) {
        (Some(conninfo), _) => Nodes::unconnected(conninfo.clone()),
        // Nobody else has a record of it.
        (None, None) => Nodes::unconnected(request.connection.clone()),
        (None, Some(_)) => match by_record(request, barman, failure.as_ref(), context) {
            Ok(nodes) if nodes.source().is_some() => return Ok(nodes),
            Ok(nodes) => nodes,
            Err(error) => match failure {
                Some(lost) => {
                    log::debug!("the Barman host does not know the upstream node either: {error}");
                    return Err(lost);
                }
                None => return Err(error),
            },
        },
    };
    nodes.upstream_id = nodes.upstream_id.or(request.upstream.node_id);
    let chosen = request.upstream.replication_user.clone();
    nodes.replication_user = chosen.or(nodes.replication_user);
    if let Some(failure) = failure {
        let remark = Remark::warning(
            RemarkCode::SourceUnreachable,
            "the source node cannot be reached from here, so that nothing about it is checked",
        );
        let why = failure.detail().map(|detail| format!("{failure}: {detail}"));
        let hint = Hint::from("the standby will not stream before its upstream node can be reached");
        context.tell(remark.detail(why).hint(hint));
    }
    Ok(nodes)
}

/// By the upstream node's record, which the Barman host can fetch: another address than the one that did not
/// answer may lead there.
fn by_record(
    request: &CloneRequest,
    barman: &mut Barman,
    failure: Option<&CloneError>,
    context: &Context<'_>,
) -> Result<Nodes, CloneError> {
    let dbname = request.connection.get("dbname");
    let record = barman.upstream_record(dbname, request.upstream.node_id)?;
    if let Some(failure) = failure
        && let Ok(nodes) = Nodes::connect_to(&record.conninfo, Some(Method::Barman), context)
    {
        tell_of_other_node(record.node_id, failure, context);
        return Ok(nodes);
    }
    let mut nodes = Nodes::unconnected(record.conninfo);
    nodes.upstream_id = Some(record.node_id);
    nodes.replication_user = record.repluser;
    Ok(nodes)
}

/// The node that was asked for cannot be reached; this one of repmgr's records can.
fn tell_of_other_node(node_id: i32, failure: &CloneError, context: &Context<'_>) {
    let remark = Remark::warning(
        RemarkCode::OtherSourceNode,
        format!(
            "the source node cannot be reached; node {node_id} of repmgr's records can, and is used instead"
        ),
    );
    let hint = Hint::new("check ").remedy(Remedy::Connection);
    context.tell(remark.detail(with_causes(failure)).hint(hint));
}
