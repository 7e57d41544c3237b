//! What the file says of outboxes: tables in other databases whose rows are remembered and delivered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onceward::core::key::TENANT;
use onceward::core::policy::Order;
use onceward::relay::{After, Columns, Database, Table as Rows};
use onceward::route::Route;
use serde_json::{Value, json};

use super::ConfigError;
use super::route::{Around, Made};
use super::table::{Table, Words};
use super::words::{name as route_name, shared_scope, tenant_name, url};

/// Rows that are read at once, where nothing says otherwise, and at most.
const BATCH: usize = 100;
const BATCH_MAX: usize = 1000;

/// How often a table is looked at of which nothing is heard.
const POLL: Duration = Duration::from_secs(1);
const POLL_SQLITE: Duration = Duration::from_millis(250);
const POLL_MIN: Duration = Duration::from_millis(10);

/// Where the tables are that `onceward sql ddl` makes.
const TABLE: &str = "onceward.outbox";
const TABLE_SQLITE: &str = "onceward_outbox";

/// Whether rows that were remembered are marked, or deleted.
const AFTERS: &Words<bool> = &[("delete", false), ("mark", true)];

/// Who names subjects wants them in order.
const OWN: &str = "order = \"subject\"";

/// An outbox in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outbox {
    pub(crate) name: String,
    /// Whose its rows are.
    pub(crate) tenant: String,
    pub(crate) table: Rows,
    pub(crate) to: To,
    /// The method of a row that says none.
    pub(crate) method: String,
    /// The path of a row that says none.
    pub(crate) path: String,
    /// Within what its keys are unique.
    pub(crate) scope: String,
    pub(crate) poll: Duration,
    pub(crate) batch_max: usize,
    /// Whether somebody said which column holds what rows are about.
    has_subjects: bool,
}

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    /// All of them on this route; before their paths stands this one.
    Route(String, String),
    /// Where they say: on one of these, or on any route where there are none.
    Rows(Vec<String>),
}

impl Outbox {
    /// By which way its operations come.
    pub(crate) fn via(&self) -> String {
        route_of(&self.name)
    }

    /// What is configured, as people are shown it.
    pub(crate) fn described(&self) -> Value {
        let Rows { database, name, after, .. } = &self.table;
        let to = match &self.to {
            To::Route(route, path) => format!("{route}{path}"),
            To::Rows(routes) if routes.is_empty() => "the route of each row".to_owned(),
            To::Rows(routes) => routes.join(", "),
        };
        json!({
            "name": self.name,
            "tenant": self.tenant,
            "database": database.to_string(),
            "table": name,
            "to": to,
            "scope": self.scope,
            "after": if *after == After::Delete { "delete" } else { "mark" },
        })
    }
}

/// The name of the route that an outbox with an address of its own has.
fn route_of(name: &str) -> String {
    format!("outbox/{name}")
}

/// Reads an outbox, and makes the route of its own where it has one.
pub(super) fn read(
    name: &str,
    table: &Table<'_>,
    around: &Around<'_>,
) -> Result<(Outbox, Option<Made>), ConfigError> {
    let database = database(table, around.ca_file.as_deref())?;
    let is_sqlite = matches!(database, Database::Sqlite(_));
    let usual = if is_sqlite { TABLE_SQLITE } else { TABLE };
    let rows = table.or("table", usual.to_owned())?;
    let order = table.read("order_by")?;
    let mapped = table.within("columns", columns)?;
    let is_marked = table.word("after", AFTERS)?.unwrap_or(false);
    let deliver = table.text("deliver", url)?;
    let tenant = table.text("tenant", tenant_name)?.unwrap_or_else(|| TENANT.to_owned());
    let to = table.text("to", route_name)?;
    let routes = table.texts("routes", route_name)?;
    let method = table.or("method", "POST".to_owned())?;
    let path = table.or("path", "/".to_owned())?;
    let scope = table.text("scope", shared_scope)?.unwrap_or_else(|| route_of(name));
    let batch_max = table.or("batch_max", BATCH)?;
    let poll = table.span_or("poll", if is_sqlite { POLL_SQLITE } else { POLL })?;
    let by_row = mapped.as_ref().is_some_and(|columns| columns.all.route.is_some());
    let ways = [deliver.is_some(), to.is_some(), by_row || routes.is_some()];
    if ways.into_iter().filter(|is_said| *is_said).count() > 1 {
        return Err(table.wrong(
            "says more than once where its rows go\nhelp: say one of deliver, to, and columns.route (with routes)",
        ));
    }
    if mapped.is_some() && !ways.contains(&true) {
        return Err(table.wrong(&format!(
            "does not say where its rows go\nhelp: add to = \"ROUTE\", deliver = \"https://api.example.com/{name}\", or columns.route"
        )));
    }
    let own = deliver.as_ref().map(|url| around.own("outbox", name, table, (url, &tenant), &[OWN]));
    let own = own.transpose()?;
    let to = match (deliver, to) {
        (Some(url), _) => To::Route(route_of(name), url.path().to_owned()),
        (None, Some(route)) => To::Route(route, String::new()),
        (None, None) => To::Rows(routes.unwrap_or_default()),
    };
    if own.is_none() {
        refuse_policy(table)?;
    }
    let processed_at = mapped.as_ref().and_then(|columns| columns.processed_at.clone());
    if processed_at.is_some() && !is_marked {
        return Err(table
            .wrong("has columns.processed_at, and deletes its rows\nhelp: add after = \"mark\""));
    }
    let after = if is_marked {
        After::Mark(processed_at.unwrap_or_else(|| "processed_at".to_owned()))
    } else {
        After::Delete
    };
    let has_subjects = mapped.as_ref().is_some_and(|columns| columns.all.subject.is_some());
    let columns = Columns { order, ..mapped.map_or_else(Columns::own, |columns| columns.all) };
    let named = [&rows, &columns.id, &columns.body];
    if named.iter().any(|name| name.split('.').any(str::is_empty) || name.contains('\0')) {
        return Err(table.wrong("names a table or a column by nothing"));
    }
    if !(1..=BATCH_MAX).contains(&batch_max) {
        return Err(
            table.wrong(&format!("has a batch_max that does not lie between 1 and {BATCH_MAX}"))
        );
    }
    if poll < POLL_MIN {
        return Err(table.wrong("has a poll of less than 10ms"));
    }
    if !path.starts_with('/') {
        return Err(table.wrong("has a path that does not begin with a slash"));
    }
    let outbox = Outbox {
        name: name.to_owned(),
        tenant,
        table: Rows { database, name: rows, columns, after },
        to,
        method,
        path,
        scope,
        poll,
        batch_max,
        has_subjects,
    };
    if own.is_none() {
        outbox.check_routes(table, around)?;
    }
    Ok((outbox, own))
}

/// Rows that go by a route have its policy.
fn refuse_policy(table: &Table<'_>) -> Result<(), ConfigError> {
    match table.rest(&[]).keys().next() {
        None => Ok(()),
        Some(key) => Err(table.wrong(&format!(
            "has an unknown key {:?}\nhelp: what holds for its calls stands on the route that they go by; with `deliver` it stands here",
            key.get_ref()
        ))),
    }
}

fn database(table: &Table<'_>, ca_file: Option<&Path>) -> Result<Database, ConfigError> {
    let help = "help: write database = \"postgres://user@host/database\" or \"sqlite:PATH\"";
    let text: Option<String> = table.read("database")?;
    let text = text.ok_or_else(|| table.wrong(&format!("has no database\n{help}")))?;
    if let Some(path) = text.strip_prefix("sqlite:") {
        return Ok(Database::Sqlite(PathBuf::from(path)));
    }
    if ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(Database::Postgres { url: text, ca_file: ca_file.map(Path::to_owned) });
    }
    // It may hold a password, so it is not repeated.
    Err(table
        .wrong(&format!("has a database that is neither sqlite:PATH nor postgres://…\n{help}")))
}

/// The columns of a table that is not of our shape.
struct Mapped {
    all: Columns,
    processed_at: Option<String>,
}

fn columns(table: &Table<'_>) -> Result<Mapped, ConfigError> {
    let body = table.read("body")?;
    let processed_at = table.read("processed_at")?;
    Ok(Mapped {
        all: Columns {
            id: table.or("id", "id".to_owned())?,
            order: None,
            key: table.read("key")?,
            route: table.read("route")?,
            method: table.read("method")?,
            path: table.read("path")?,
            headers: table.read("headers")?,
            subject: table.read("subject")?,
            sequence: table.read("sequence")?,
            not_before: table.read("not_before")?,
            created_at: table.read("created_at")?,
            body: table.need("body", body)?,
        },
        processed_at,
    })
}

impl Outbox {
    /// Whether the routes that it names are there.
    fn check_routes(&self, table: &Table<'_>, around: &Around<'_>) -> Result<(), ConfigError> {
        let named = match &self.to {
            To::Route(route, _) => std::slice::from_ref(route),
            To::Rows(routes) => routes,
        };
        match named.iter().find(|name| !around.is_route(name)) {
            None => Ok(()),
            Some(missing) => Err(table.wrong(&format!(
                "goes to the route {missing:?}, which is not configured\nhelp: add [routes.{missing}]"
            ))),
        }
    }

    /// What a careful reader would ask about.
    pub(super) fn warnings(&self, routes: &BTreeMap<String, Arc<Route>>) -> Option<String> {
        let To::Route(route, _) = &self.to else { return None };
        let policy = &routes.get(route)?.policy;
        let has_order = policy.order == Order::Subject || self.table.columns.sequence.is_some();
        (self.has_subjects && !has_order).then(|| {
            format!(
                "[outbox.{}] says what its rows are about, but [routes.{route}] keeps no order among them. Say order = \"subject\" there.",
                self.name
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    const ROUTE: &str = "[routes.crm]\nupstream = \"https://crm.example\"\neffects = \"keyed\"\n";

    #[test]
    fn an_outbox_of_our_own_shape_needs_a_database_only() {
        let text = format!("{ROUTE}[outbox.app]\ndatabase = \"postgres://u:s3cret@db/app\"");
        let config = load(&text).unwrap();
        let outbox = &config.outboxes["app"];
        assert_eq!(outbox.table.name, "onceward.outbox");
        assert_eq!((&outbox.to, &outbox.table.after), (&To::Rows(vec![]), &After::Delete));
        assert_eq!((outbox.scope.as_str(), outbox.via().as_str()), ("outbox/app", "outbox/app"));
        assert!(!format!("{outbox:?}").contains("s3cret"));
        let file = load("[outbox.a]\ndatabase = \"sqlite:app.db\"").unwrap();
        assert_eq!(file.outboxes["a"].table.name, "onceward_outbox");
    }

    #[test]
    fn a_mapped_table_with_an_address_of_its_own_has_a_route_of_its_own() {
        let config = load(
            r#"
            [outbox.events]
            database = "postgres://db/app"
            table    = "public.outboxevent"
            columns  = { body = "payload", subject = "aggregateid", processed_at = "sent" }
            order_by = "seq"
            after    = "mark"
            deliver  = "https://hooks.example.com/in"
            scope    = "orders"
            effects  = "keyed"
            retry    = { attempts_max = 5 }
            "#,
        )
        .unwrap();
        let outbox = &config.outboxes["events"];
        assert_eq!(outbox.to, To::Route("outbox/events".into(), "/in".into()));
        assert_eq!((outbox.scope.as_str(), &outbox.table.columns.key), ("scope/orders", &None));
        assert_eq!(outbox.table.after, After::Mark("sent".into()));
        let route = &config.routes["outbox/events"];
        assert_eq!(route.target.base.as_str(), "https://hooks.example.com/");
        assert_eq!((route.policy.order, route.policy.accepted.attempts_max), (Order::Subject, 5));
        let said =
            |key: &str| config.settings.iter().any(|it| it.key == key && it.from == "outbox");
        assert!(said("effects") && said("retry"), "{:?}", config.settings);
        let warnings = config.warnings();
        assert!(
            warnings.iter().all(|it| it.starts_with("[outbox.events] retries")),
            "{warnings:?}"
        );
    }

    #[test]
    fn what_is_wrong_with_an_outbox_is_said_with_its_mend() {
        let db = "database = \"postgres://db/app\"\n";
        for (text, what) in [
            ("", "sqlite:PATH"),
            ("database = \"mysql://root:s3cret@h/d\"", "postgres://user@host"),
            (&format!("{db}to = \"crn\""), "add [routes.crn]"),
            (&format!("{db}routes = [\"crn\"]"), "add [routes.crn]"),
            (&format!("{db}to = \"crm\"\ndeliver = \"https://h\""), "one of deliver, to"),
            (
                &format!("{db}columns = {{ body = \"b\" }}"),
                "deliver = \"https://api.example.com/x\"",
            ),
            (&format!("{db}to = \"crm\"\ncolumns = {{ id = \"i\" }}"), "columns.body"),
            (&format!("{db}to = \"crm\"\ncolumns = {{ bdy = \"i\" }}"), "bdy"),
            (
                &format!("{db}deliver = \"https://h\"\nupstream = \"https://h\""),
                "it goes is deliver",
            ),
            (&format!("{db}to = \"crm\"\nretry = {{ attempts_max = 1 }}"), "`deliver`"),
            (
                &format!("{db}deliver = \"https://h\"\nretyr = 1"),
                "[outbox.x] has an unknown key \"retyr\"",
            ),
            (&format!("{db}batch_max = 0"), "batch_max"),
            (&format!("{db}poll = \"1ms\""), "10ms"),
            (
                &format!("{db}to = \"crm\"\ncolumns = {{ body = \"b\", processed_at = \"p\" }}"),
                "after = \"mark\"",
            ),
        ] {
            let error = load(&format!("{ROUTE}[outbox.x]\n{text}")).unwrap_err();
            assert!(error.contains(what) && !error.contains("s3cret"), "{text}\n{error}");
        }
    }

    #[test]
    fn subjects_on_a_route_without_an_order_are_asked_about() {
        let text = format!(
            "{ROUTE}[outbox.x]\ndatabase = \"sqlite:a.db\"\nto = \"crm\"\ncolumns = {{ body = \"b\", subject = \"s\" }}"
        );
        let warnings = load(&text).unwrap().warnings();
        assert!(warnings.iter().any(|warning| warning.contains("order = \"subject\"")));
    }
}
