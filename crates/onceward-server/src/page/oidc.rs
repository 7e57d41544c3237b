//! The way in by an identity provider: there, and back.

use axum::extract::Extension;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::HeaderMap;
use onceward::problem;

use super::frame::base_of;
use super::login::{Way, enter, failed, open, with_cookie};
use crate::access::{Arrival, By, Cookie};
use crate::oidc::{Identity, Returned, Trouble};
use crate::operator::Asked;
use crate::problem::Problem;
use crate::view::View;

pub(super) async fn begin(
    node: View,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
    Asked(way): Asked<Way>,
) -> Result<Response, Problem> {
    if !node.access.is_needed() {
        return Ok(Redirect::to(way.back()).into_response());
    }
    let secrets = node.engine.secrets();
    let leaving = node.oidc.begin(&base_of(&headers), way.back(), secrets).await;
    let leaving = leaving.map_err(|trouble| told(&trouble))?;
    let cookie = Cookie::Login.set(&leaving.cookie, arrival.is_secured);
    Ok(with_cookie(Redirect::to(leaving.to.as_str()).into_response(), cookie))
}

pub(super) async fn callback(
    node: View,
    Extension(arrival): Extension<Arrival>,
    Asked(returned): Asked<Returned>,
) -> Result<Response, Problem> {
    node.access.may_try(arrival.address)?;
    let secrets = node.engine.secrets();
    let (identity, next) = match node.oidc.finish(arrival.login(), returned, secrets).await {
        Ok(done) => done,
        Err(trouble) => {
            failed(&node, &arrival, &trouble.to_string()).await?;
            let cleared = Cookie::Login.clear(arrival.is_secured);
            return Ok(with_cookie(told(&trouble).into_response(), cleared));
        }
    };
    node.access.tried_well(arrival.address);
    let Identity { name, subject, roles } = identity;
    let who = format!("oidc:{name}");
    let opened = open(&node, &arrival, By::Provider { name, subject, roles }, &who).await?;
    let entered = enter(&opened, &arrival, &next);
    Ok(with_cookie(entered, Cookie::Login.clear(arrival.is_secured)))
}

fn told(trouble: &Trouble) -> Problem {
    let problem = problem::Problem::new("login-refused", trouble.to_string());
    match trouble {
        Trouble::Refused(_) => problem.into(),
        Trouble::Provider(_) => problem.status(502).into(),
    }
}
