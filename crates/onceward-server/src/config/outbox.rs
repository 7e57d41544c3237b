//! What the file says of outboxes: tables in other databases whose rows are remembered and delivered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onceward::core::policy::Order;
use onceward::relay::{After, Columns, Database, Table};
use onceward::route::Route;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ConfigError, HttpUrl, OrderWord, RouteFile, RouteName, ScopeName, Value as Secret};
use crate::units::Span;

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

words!(AfterWord { "delete" => Delete, "mark" => Mark });

#[derive(Debug, Clone, Deserialize)]
pub(super) struct OutboxFile {
    /// It may hold a password.
    database: Option<Secret>,
    table: Option<String>,
    columns: Option<ColumnsFile>,
    order_by: Option<String>,
    after: Option<AfterWord>,
    deliver: Option<HttpUrl>,
    to: Option<RouteName>,
    routes: Option<Vec<RouteName>>,
    method: Option<String>,
    path: Option<String>,
    scope: Option<ScopeName>,
    poll: Option<Span>,
    batch_max: Option<usize>,
    /// With `deliver`: what may stand on a route.
    #[serde(flatten)]
    route: toml::Table,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnsFile {
    id: Option<String>,
    key: Option<String>,
    route: Option<String>,
    method: Option<String>,
    path: Option<String>,
    headers: Option<String>,
    body: Option<String>,
    subject: Option<String>,
    sequence: Option<String>,
    not_before: Option<String>,
    created_at: Option<String>,
    processed_at: Option<String>,
}

/// An outbox in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outbox {
    pub(crate) name: String,
    pub(crate) table: Table,
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
        let Table { database, name, after, .. } = &self.table;
        let to = match &self.to {
            To::Route(route, path) => format!("{route}{path}"),
            To::Rows(routes) if routes.is_empty() => "the route of each row".to_owned(),
            To::Rows(routes) => routes.join(", "),
        };
        json!({
            "name": self.name,
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

/// The outboxes of the file, and the routes that some of them have of their own, which `build` makes.
pub(super) fn outboxes(
    files: &BTreeMap<RouteName, OutboxFile>,
    routes: &mut BTreeMap<String, Arc<Route>>,
    around: &Around<'_>,
    mut build: impl FnMut(&str, &RouteFile) -> Result<Route, ConfigError>,
) -> Result<BTreeMap<String, Arc<Outbox>>, ConfigError> {
    let mut outboxes = BTreeMap::new();
    for (RouteName(name), file) in files {
        let wrong = |what: &str| ConfigError(format!("{}: [outbox.{name}] {what}", around.source));
        let mut to = aim(name, file, &wrong)?;
        if let Some(HttpUrl(url)) = &file.deliver {
            let mut own = file.route.clone();
            own.insert("upstream".to_owned(), toml::Value::String(url.as_str().to_owned()));
            let own: Result<RouteFile, _> = toml::Value::Table(own).try_into();
            let mut own =
                own.map_err(|error| wrong(&format!("cannot be read: {}", error.message())))?;
            let mut origin = url.clone();
            origin.set_path("/");
            own.upstream = Some(HttpUrl(origin));
            own.scope.clone_from(&file.scope);
            // Who names subjects wants them in order.
            own.policy.order = own.policy.order.or(Some(OrderWord::Subject));
            let route = route_of(name);
            routes.insert(route.clone(), Arc::new(build(&route, &own)?));
            to = To::Route(route, url.path().to_owned());
        } else if let Some(key) = file.route.keys().next() {
            return Err(wrong(&format!(
                "has an unknown key {key:?}\nhelp: what holds for its calls stands on the route that they go by; with `deliver` it stands here"
            )));
        }
        let outbox = read(name, file, to, around, &wrong)?;
        outbox.check_routes(routes, around, &wrong)?;
        outboxes.insert(name.clone(), Arc::new(outbox));
    }
    Ok(outboxes)
}

/// What an outbox is read among.
#[derive(Debug)]
pub(super) struct Around<'a> {
    /// What errors call the file.
    pub(super) source: &'a str,
    pub(super) ca_file: Option<&'a Path>,
    /// Whether the scripted routes are there.
    pub(super) demo: bool,
}

/// Where its rows go, where it has no address of its own.
fn aim(
    name: &str,
    file: &OutboxFile,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<To, ConfigError> {
    let by_row = file.columns.as_ref().is_some_and(|columns| columns.route.is_some());
    let ways = [file.deliver.is_some(), file.to.is_some(), by_row || file.routes.is_some()];
    if ways.into_iter().filter(|is_said| *is_said).count() > 1 {
        return Err(wrong(
            "says more than once where its rows go\nhelp: say one of deliver, to, and columns.route (with routes)",
        ));
    }
    if let Some(RouteName(route)) = &file.to {
        return Ok(To::Route(route.clone(), String::new()));
    }
    if file.columns.is_some() && !by_row && file.deliver.is_none() {
        return Err(wrong(&format!(
            "does not say where its rows go\nhelp: add to = \"ROUTE\", deliver = \"https://api.example.com/{name}\", or columns.route"
        )));
    }
    let named = file.routes.iter().flatten().map(|RouteName(route)| route.clone());
    Ok(To::Rows(named.collect()))
}

fn read(
    name: &str,
    file: &OutboxFile,
    to: To,
    around: &Around<'_>,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<Outbox, ConfigError> {
    let database = database(file.database.as_ref(), around.ca_file, wrong)?;
    let is_sqlite = matches!(database, Database::Sqlite(_));
    let table = file.table.as_deref().unwrap_or(if is_sqlite { TABLE_SQLITE } else { TABLE });
    let columns = columns(file, wrong)?;
    let processed_at = file.columns.as_ref().and_then(|columns| columns.processed_at.clone());
    let after = match file.after {
        Some(AfterWord::Mark) => {
            After::Mark(processed_at.unwrap_or_else(|| "processed_at".to_owned()))
        }
        _ if processed_at.is_some() => {
            return Err(wrong(
                "has columns.processed_at, and deletes its rows\nhelp: add after = \"mark\"",
            ));
        }
        _ => After::Delete,
    };
    let named = [table, &columns.id, &columns.body];
    if named.iter().any(|name| name.split('.').any(str::is_empty) || name.contains('\0')) {
        return Err(wrong("names a table or a column by nothing"));
    }
    let batch_max = file.batch_max.unwrap_or(BATCH);
    if !(1..=BATCH_MAX).contains(&batch_max) {
        return Err(wrong(&format!("has a batch_max that does not lie between 1 and {BATCH_MAX}")));
    }
    let poll = file.poll.map_or(if is_sqlite { POLL_SQLITE } else { POLL }, |span| span.0);
    if poll < POLL_MIN {
        return Err(wrong("has a poll of less than 10ms"));
    }
    let path = file.path.clone().unwrap_or_else(|| "/".to_owned());
    if !path.starts_with('/') {
        return Err(wrong("has a path that does not begin with a slash"));
    }
    let scope = file.scope.as_ref().map_or_else(|| route_of(name), |scope| scope.0.clone());
    Ok(Outbox {
        name: name.to_owned(),
        has_subjects: file.columns.as_ref().is_some_and(|columns| columns.subject.is_some()),
        table: Table { database, name: table.to_owned(), columns, after },
        to,
        method: file.method.clone().unwrap_or_else(|| "POST".to_owned()),
        path,
        scope,
        poll,
        batch_max,
    })
}

fn database(
    text: Option<&Secret>,
    ca_file: Option<&Path>,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<Database, ConfigError> {
    let help = "help: write database = \"postgres://user@host/database\" or \"sqlite:PATH\"";
    let text = &text.ok_or_else(|| wrong(&format!("has no database\n{help}")))?.0;
    if let Some(path) = text.strip_prefix("sqlite:") {
        return Ok(Database::Sqlite(PathBuf::from(path)));
    }
    if ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(Database::Postgres { url: text.clone(), ca_file: ca_file.map(Path::to_owned) });
    }
    // It may hold a password, so it is not repeated.
    Err(wrong(&format!("has a database that is neither sqlite:PATH nor postgres://…\n{help}")))
}

fn columns(
    file: &OutboxFile,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<Columns, ConfigError> {
    let order = file.order_by.clone();
    let Some(named) = &file.columns else { return Ok(Columns { order, ..Columns::own() }) };
    let named = named.clone();
    Ok(Columns {
        id: named.id.unwrap_or_else(|| "id".to_owned()),
        order,
        key: named.key,
        route: named.route,
        method: named.method,
        path: named.path,
        headers: named.headers,
        body: named.body.ok_or_else(|| {
            wrong("has columns without one for the body\nhelp: add columns.body = \"payload\"")
        })?,
        subject: named.subject,
        sequence: named.sequence,
        not_before: named.not_before,
        created_at: named.created_at,
    })
}

impl Outbox {
    /// Whether the routes that it names are there.
    fn check_routes(
        &self,
        routes: &BTreeMap<String, Arc<Route>>,
        around: &Around<'_>,
        wrong: &impl Fn(&str) -> ConfigError,
    ) -> Result<(), ConfigError> {
        let named = match &self.to {
            To::Route(route, _) => std::slice::from_ref(route),
            To::Rows(routes) => routes,
        };
        let is_demo = |name: &str| around.demo && matches!(name, "demo" | "demo-unsafe");
        match named.iter().find(|name| !routes.contains_key(*name) && !is_demo(name)) {
            None => Ok(()),
            Some(missing) => Err(wrong(&format!(
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
