//! What stays on record of a clone: a row in `repmgr.events`, and the user's notification.

use crate::error::with_causes;
use crate::look::Outlook;
use crate::told::notify::NotifiedEvent;
use crate::{CloneError, CloneRequest, Context, Remark, RemarkCode};

const EVENT: &str = "standby_clone";

/// Records how the clone ended. Nothing that fails here changes that.
pub(crate) fn record(
    request: &CloneRequest,
    outlook: &Outlook,
    error: Option<&CloneError>,
    context: &Context<'_>,
) {
    let details = match error {
        None => success(request, outlook),
        Some(error) => with_causes(error),
    };
    let successful = error.is_none();
    let warn = |text: &str, detail: String| {
        context.tell(Remark::warning(RemarkCode::NotRecorded, text).detail(detail));
    };
    // Without a number it is none of repmgr's nodes.
    let recorded = match &request.node {
        Some(node) => outlook
            .nodes
            .insert_event(node.id, EVENT, successful, &details, context),
        None => Ok(()),
    };
    if let Err(error) = recorded {
        warn("unable to create event record", error);
    }
    let Some(notification) = request.notification.as_ref().filter(|n| n.wants(EVENT)) else {
        return;
    };
    let timestamp = now();
    let event = NotifiedEvent {
        node_id: request.node.as_ref().map_or(-1, |node| node.id),
        event: EVENT,
        successful,
        timestamp: &timestamp,
        details: &details,
    };
    if let Err(error) = notification.run(&event, context.cancel) {
        warn("the event notification failed", with_causes(&error));
    }
}

/// As repmgr words it.
fn success(request: &CloneRequest, outlook: &Outlook) -> String {
    let source = outlook.nodes.source().map(|node| node.endpoint());
    let from = |keyword: &str| request.connection.get(keyword).unwrap_or_default().to_owned();
    let (host, port) = match source {
        Some(endpoint) => (endpoint.host.clone(), endpoint.port.to_string()),
        None => (from("host"), from("port")),
    };
    format!(
        "cloned from host \"{host}\", port {port}; backup method: {}; --force: {}",
        outlook.plan.method,
        if request.force { "Y" } else { "N" }
    )
}

/// Local time as PostgreSQL prints it, or UTC where the zone is not known.
fn now() -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'static>] = time::macros::format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6][offset_hour sign:mandatory][offset_minute]"
    );
    let utc = time::OffsetDateTime::now_utc();
    let offset = time::UtcOffset::local_offset_at(utc).unwrap_or(time::UtcOffset::UTC);
    utc.to_offset(offset)
        .format(FORMAT)
        .unwrap_or_else(|_| utc.to_string())
}
