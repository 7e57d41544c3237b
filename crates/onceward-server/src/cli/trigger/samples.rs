//! Samples of what providers send: the members that handlers look at first, in the shape that each provider's
//! documents give them. Nothing in them is anybody's.

use url::form_urlencoded;

/// A webhook of one kind.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) scheme: &'static str,
    pub(super) event: &'static str,
    /// What it tells, for people.
    pub(super) says: &'static str,
    /// Its body: `{id}` is the event's id, `{tail}` the end of it for what else needs an id, `{event}` the event,
    /// `{seconds}` and `{time}` are now.
    text: &'static str,
}

/// The longest end of an id that other ids are made of.
const TAIL_MAX: usize = 16;

impl Sample {
    /// The body of one.
    pub(super) fn body(&self, id: &str, event: &str, at: jiff::Timestamp) -> String {
        let is_form = is_form(self.scheme, self.event, self.text.as_bytes());
        let written = |text: &str| {
            if is_form {
                return form_urlencoded::byte_serialize(text.as_bytes()).collect();
            }
            // Between the quotes that stand in the sample.
            let quoted = serde_json::Value::from(text).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        };
        let tail: Vec<char> = id.chars().filter(char::is_ascii_alphanumeric).collect();
        let tail: String = tail[tail.len().saturating_sub(TAIL_MAX)..].iter().collect();
        let time = format!("{at:.3}");
        let seconds = at.as_second().to_string();
        [
            ("{id}", written(id)),
            ("{tail}", tail),
            ("{event}", written(event)),
            ("{seconds}", seconds),
            ("{time}", written(&time)),
        ]
        .iter()
        .fold(self.text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

/// Whether any event may be asked for: its receiver's own services name them.
pub(super) fn is_anybodys(scheme: &str) -> bool {
    matches!(scheme, "standard-webhooks" | "svix")
}

/// Whether such a body is a form.
pub(super) fn is_form(scheme: &str, event: &str, body: &[u8]) -> bool {
    let is_sent_so =
        scheme == "twilio" || (scheme == "slack" && matches!(event, "command" | "interaction"));
    is_sent_so && !body.starts_with(b"{")
}

/// One of Stripe's: all events have the same frame around their object.
macro_rules! stripe {
    ($event:literal, $says:literal, $object:literal) => {
        Sample {
            scheme: "stripe",
            event: $event,
            says: $says,
            text: concat!(
                r#"{"id":"{id}","object":"event","api_version":"2025-09-30.clover","created":{seconds},"type":"{event}","livemode":false,"pending_webhooks":1,"request":{"id":"req_{tail}","idempotency_key":"key-{tail}"},"data":{"object":"#,
                $object,
                "}}"
            ),
        }
    };
}

macro_rules! plain {
    ($scheme:literal, $event:literal, $says:literal, $text:literal) => {
        Sample { scheme: $scheme, event: $event, says: $says, text: $text }
    };
}

/// All of them, in the order in which they are listed.
pub(super) const ALL: &[Sample] = &[
    stripe!(
        "payment_intent.succeeded",
        "a payment was made",
        r#"{"id":"pi_{tail}","object":"payment_intent","amount":2000,"amount_received":2000,"currency":"eur","status":"succeeded","created":{seconds},"customer":"cus_{tail}","latest_charge":"ch_{tail}","metadata":{}}"#
    ),
    stripe!(
        "payment_intent.created",
        "a payment was begun",
        r#"{"id":"pi_{tail}","object":"payment_intent","amount":2000,"amount_received":0,"currency":"eur","status":"requires_payment_method","created":{seconds},"customer":null,"metadata":{}}"#
    ),
    stripe!(
        "payment_intent.payment_failed",
        "a card was declined",
        r#"{"id":"pi_{tail}","object":"payment_intent","amount":2000,"amount_received":0,"currency":"eur","status":"requires_payment_method","created":{seconds},"customer":"cus_{tail}","last_payment_error":{"type":"card_error","code":"card_declined","decline_code":"insufficient_funds","message":"Your card has insufficient funds."},"metadata":{}}"#
    ),
    stripe!(
        "charge.succeeded",
        "a card was charged",
        r#"{"id":"ch_{tail}","object":"charge","amount":2000,"amount_refunded":0,"currency":"eur","paid":true,"refunded":false,"captured":true,"status":"succeeded","created":{seconds},"customer":"cus_{tail}","payment_intent":"pi_{tail}","metadata":{}}"#
    ),
    stripe!(
        "charge.refunded",
        "a charge was given back",
        r#"{"id":"ch_{tail}","object":"charge","amount":2000,"amount_refunded":2000,"currency":"eur","paid":true,"refunded":true,"captured":true,"status":"succeeded","created":{seconds},"customer":"cus_{tail}","payment_intent":"pi_{tail}","metadata":{}}"#
    ),
    stripe!(
        "checkout.session.completed",
        "somebody went through the checkout",
        r#"{"id":"cs_test_{tail}","object":"checkout.session","amount_total":2000,"currency":"eur","mode":"payment","payment_status":"paid","status":"complete","customer":"cus_{tail}","customer_details":{"email":"ada@example.com","name":"Ada"},"payment_intent":"pi_{tail}","client_reference_id":null,"metadata":{}}"#
    ),
    stripe!(
        "customer.created",
        "there is a new customer",
        r#"{"id":"cus_{tail}","object":"customer","created":{seconds},"email":"ada@example.com","name":"Ada","livemode":false,"metadata":{}}"#
    ),
    stripe!(
        "customer.subscription.created",
        "a subscription began",
        r#"{"id":"sub_{tail}","object":"subscription","customer":"cus_{tail}","status":"active","created":{seconds},"cancel_at_period_end":false,"items":{"object":"list","data":[{"id":"si_{tail}","object":"subscription_item","quantity":1,"price":{"id":"price_{tail}","object":"price","currency":"eur","unit_amount":900,"recurring":{"interval":"month","interval_count":1}}}]},"metadata":{}}"#
    ),
    stripe!(
        "customer.subscription.deleted",
        "a subscription ended",
        r#"{"id":"sub_{tail}","object":"subscription","customer":"cus_{tail}","status":"canceled","created":{seconds},"canceled_at":{seconds},"ended_at":{seconds},"cancel_at_period_end":false,"metadata":{}}"#
    ),
    stripe!(
        "invoice.paid",
        "an invoice was paid",
        r#"{"id":"in_{tail}","object":"invoice","customer":"cus_{tail}","amount_due":900,"amount_paid":900,"amount_remaining":0,"currency":"eur","status":"paid","created":{seconds},"attempt_count":1,"metadata":{}}"#
    ),
    stripe!(
        "invoice.payment_failed",
        "an invoice could not be paid",
        r#"{"id":"in_{tail}","object":"invoice","customer":"cus_{tail}","amount_due":900,"amount_paid":0,"amount_remaining":900,"currency":"eur","status":"open","created":{seconds},"attempt_count":1,"metadata":{}}"#
    ),
    plain!(
        "github",
        "push",
        "commits were pushed",
        r#"{"ref":"refs/heads/main","before":"6113728f27ae82c7b1a177c8d03f9e96e0adf246","after":"59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5","created":false,"deleted":false,"forced":false,"repository":{"id":35129377,"name":"hello","full_name":"ada/hello","private":false,"default_branch":"main","owner":{"login":"ada","id":21031067}},"pusher":{"name":"ada","email":"ada@example.com"},"sender":{"login":"ada","id":21031067,"type":"User"},"head_commit":{"id":"59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5","message":"Say hello","timestamp":"{time}","author":{"name":"Ada","email":"ada@example.com"},"added":["hello.txt"],"removed":[],"modified":[]},"commits":[{"id":"59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5","message":"Say hello","timestamp":"{time}","author":{"name":"Ada","email":"ada@example.com"},"added":["hello.txt"],"removed":[],"modified":[]}]}"#
    ),
    plain!(
        "github",
        "ping",
        "a webhook was set up",
        r#"{"zen":"Keep it logically awesome.","hook_id":109948940,"hook":{"type":"Repository","id":109948940,"active":true,"events":["push"]},"repository":{"id":35129377,"name":"hello","full_name":"ada/hello"},"sender":{"login":"ada","id":21031067,"type":"User"}}"#
    ),
    plain!(
        "github",
        "pull_request",
        "a pull request was opened",
        r#"{"action":"opened","number":2,"pull_request":{"id":279147437,"number":2,"state":"open","title":"Say hello","body":"It says hello.","draft":false,"merged":false,"created_at":"{time}","user":{"login":"ada","id":21031067},"head":{"ref":"hello","sha":"ec26c3e57ca3a959ca5aad62de7213c562f8c821"},"base":{"ref":"main","sha":"f95f852bd8fca8fcc58a9a2d6c842781e32a215e"}},"repository":{"id":35129377,"name":"hello","full_name":"ada/hello"},"sender":{"login":"ada","id":21031067,"type":"User"}}"#
    ),
    plain!(
        "github",
        "issues",
        "an issue was opened",
        r#"{"action":"opened","issue":{"id":444500041,"number":1,"state":"open","title":"It does not say hello","body":"It should.","created_at":"{time}","user":{"login":"ada","id":21031067},"labels":[]},"repository":{"id":35129377,"name":"hello","full_name":"ada/hello"},"sender":{"login":"ada","id":21031067,"type":"User"}}"#
    ),
    plain!(
        "github",
        "issue_comment",
        "somebody commented on an issue",
        r#"{"action":"created","issue":{"id":444500041,"number":1,"state":"open","title":"It does not say hello","user":{"login":"ada","id":21031067}},"comment":{"id":492700400,"body":"I am looking at it.","created_at":"{time}","user":{"login":"ada","id":21031067}},"repository":{"id":35129377,"name":"hello","full_name":"ada/hello"},"sender":{"login":"ada","id":21031067,"type":"User"}}"#
    ),
    plain!(
        "github",
        "release",
        "a release was published",
        r#"{"action":"published","release":{"id":17372790,"tag_name":"v1.0.0","name":"First","body":"It says hello.","draft":false,"prerelease":false,"published_at":"{time}","author":{"login":"ada","id":21031067}},"repository":{"id":35129377,"name":"hello","full_name":"ada/hello"},"sender":{"login":"ada","id":21031067,"type":"User"}}"#
    ),
    plain!(
        "github",
        "workflow_run",
        "a workflow ended",
        r#"{"action":"completed","workflow_run":{"id":289782451,"name":"CI","event":"push","status":"completed","conclusion":"success","head_branch":"main","head_sha":"59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5","run_number":2,"run_attempt":1,"updated_at":"{time}"},"repository":{"id":35129377,"name":"hello","full_name":"ada/hello"},"sender":{"login":"ada","id":21031067,"type":"User"}}"#
    ),
    plain!(
        "slack",
        "app_mention",
        "somebody named the app",
        r#"{"token":"none","team_id":"T061EG9R6","api_app_id":"A0MDYCDME","type":"event_callback","event_id":"{id}","event_time":{seconds},"event":{"type":"app_mention","user":"U061F7AUR","text":"<@U0LAN0Z89> is it everything a river should be?","ts":"{seconds}.000400","channel":"C0LAN2Q65","event_ts":"{seconds}.000400"},"authorizations":[{"team_id":"T061EG9R6","user_id":"U0LAN0Z89","is_bot":true}]}"#
    ),
    plain!(
        "slack",
        "message",
        "somebody wrote in a channel",
        r#"{"token":"none","team_id":"T061EG9R6","api_app_id":"A0MDYCDME","type":"event_callback","event_id":"{id}","event_time":{seconds},"event":{"type":"message","channel_type":"channel","user":"U061F7AUR","text":"Hello.","ts":"{seconds}.000200","channel":"C0LAN2Q65","event_ts":"{seconds}.000200"},"authorizations":[{"team_id":"T061EG9R6","user_id":"U0LAN0Z89","is_bot":true}]}"#
    ),
    plain!(
        "slack",
        "command",
        "somebody typed a command",
        "token=none&team_id=T061EG9R6&team_domain=example&channel_id=C0LAN2Q65&channel_name=general&user_id=U061F7AUR&user_name=ada&command=%2Fdeploy&text=main&api_app_id=A0MDYCDME&response_url=https%3A%2F%2Fhooks.slack.example%2Fcommands%2F1234&trigger_id={id}"
    ),
    plain!(
        "shopify",
        "orders/create",
        "there is a new order",
        r#"{"id":820982911946154508,"admin_graphql_api_id":"gid://shopify/Order/820982911946154508","name":"1001","email":"ada@example.com","created_at":"{time}","updated_at":"{time}","currency":"EUR","total_price":"398.00","subtotal_price":"388.00","financial_status":"pending","fulfillment_status":null,"line_items":[{"id":866550311766439020,"title":"Mug","quantity":1,"price":"199.00","sku":"MUG-1"}],"customer":{"id":115310627314723954,"email":"ada@example.com","first_name":"Ada"}}"#
    ),
    plain!(
        "shopify",
        "orders/paid",
        "an order was paid",
        r#"{"id":820982911946154508,"admin_graphql_api_id":"gid://shopify/Order/820982911946154508","name":"1001","email":"ada@example.com","created_at":"{time}","updated_at":"{time}","currency":"EUR","total_price":"398.00","financial_status":"paid","fulfillment_status":null,"line_items":[{"id":866550311766439020,"title":"Mug","quantity":1,"price":"199.00","sku":"MUG-1"}]}"#
    ),
    plain!(
        "shopify",
        "products/update",
        "a product was changed",
        r#"{"id":788032119674292922,"admin_graphql_api_id":"gid://shopify/Product/788032119674292922","title":"Example T-Shirt","handle":"example-t-shirt","status":"active","updated_at":"{time}","variants":[{"id":642667041472713922,"title":"Small","price":"19.99","sku":"example-shirt-s","inventory_quantity":75}]}"#
    ),
    plain!(
        "shopify",
        "app/uninstalled",
        "a shop took the app out",
        r#"{"id":548380009,"name":"Example","email":"ada@example.com","domain":null,"myshopify_domain":"example.myshopify.com","updated_at":"{time}"}"#
    ),
    plain!(
        "twilio",
        "message.received",
        "a message came in",
        "MessageSid=SM{tail}&AccountSid=AC00000000000000000000000000000000&From=%2B15550100&To=%2B15550101&Body=Hello.&NumMedia=0&NumSegments=1&SmsStatus=received"
    ),
    plain!(
        "twilio",
        "message.delivered",
        "a message has arrived",
        "MessageSid=SM{tail}&AccountSid=AC00000000000000000000000000000000&From=%2B15550101&To=%2B15550100&MessageStatus=delivered&SmsStatus=delivered"
    ),
    plain!(
        "standard-webhooks",
        "order.created",
        "an event of your own services; any type may be asked for",
        r#"{"type":"{event}","timestamp":"{time}","data":{"id":"{tail}"}}"#
    ),
    plain!(
        "svix",
        "order.created",
        "the same, under Svix' header names",
        r#"{"type":"{event}","timestamp":"{time}","data":{"id":"{tail}"}}"#
    ),
];
