use millstream_plugin::prelude::*;
fn handle(event: Event<'_>, out: &mut Outbox) -> Result {
    out.text(&event.text()?.to_lowercase())
}
export!(fn handle);
