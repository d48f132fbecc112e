//! Who gets in: every route by every method for every kind of credential.

use super::super::access::{Action, action, allows};
use super::*;
use crate::serve::Connection;
use cube_api::routes;

/// The methods of a path, and what each does.
type Methods = &'static [(&'static str, Option<Action>)];

/// Every path of [`routes`] that the leader serves, with the methods that it answers there and what each does (`None`: anybody may).
const ROUTES: &[(&str, Methods)] = &[
    (routes::APPLY, &[("POST", Some(Action::Change))]),
    (routes::PODS, &[("GET", Some(Action::Read))]),
    (routes::POD, &[("GET", Some(Action::Read)), ("DELETE", Some(Action::Change))]),
    (routes::POD_RESTART, &[("POST", Some(Action::Change))]),
    (routes::POD_LOGS, &[("GET", Some(Action::Read))]),
    (routes::POD_EXEC, &[("GET", Some(Action::Exec))]),
    (routes::NODES, &[("GET", Some(Action::Read))]),
    (routes::NODE, &[("GET", Some(Action::Read)), ("PATCH", Some(Action::Change)), ("DELETE", Some(Action::Change))]),
    (routes::NODE_CORDON, &[("POST", Some(Action::Change)), ("DELETE", Some(Action::Change))]),
    (routes::NODE_DRAIN, &[("POST", Some(Action::Change))]),
    (routes::NODE_REPORT, &[("POST", Some(Action::BeNode))]),
    (routes::OBJECTS, &[("GET", Some(Action::Read))]),
    (routes::DEPLOYMENT_SCALE, &[("POST", Some(Action::Change))]),
    (routes::DEPLOYMENT_ROLLOUT, &[("POST", Some(Action::Change))]),
    (routes::CRONJOB_TRIGGER, &[("POST", Some(Action::Change))]),
    (routes::OBJECT, &[("GET", Some(Action::Read)), ("DELETE", Some(Action::Change))]),
    (routes::EVENTS, &[("GET", Some(Action::Read))]),
    (routes::SESSION, &[("POST", Some(Action::BeNode))]),
    (routes::TASKS, &[("GET", Some(Action::Read)), ("POST", Some(Action::Change))]),
    (routes::TASK, &[("GET", Some(Action::Read)), ("DELETE", Some(Action::Change))]),
    (routes::WORKERS, &[("GET", Some(Action::Read))]),
    (routes::METRICS, &[("GET", Some(Action::Read))]),
    (routes::HEALTHZ, &[("GET", None)]),
    (routes::READYZ, &[("GET", None)]),
    (routes::VERSION, &[("GET", None)]),
];

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"];

fn method(text: &str) -> Method {
    Method::from_bytes(text.as_bytes()).expect("a method")
}

fn filled_in(route: &str) -> String {
    route.replace("{name}", "n1").replace("{types}", "secrets").replace("{action}", "undo")
}

fn is_open(route: &str) -> bool {
    ROUTES.iter().any(|(path, methods)| *path == route && methods.iter().all(|(_, action)| action.is_none()))
}

/// `{"alg":"none","typ":"JWT"}` in base64.
const NO_ALGORITHM: &str = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";

/// Not this cluster's, or none at all.
fn strangers() -> Vec<Option<String>> {
    let keys = |token: &str| Keys::new(&Token::new(token).expect("not blank"));
    let (ours, other, now) = (keys(TOKEN).mint(&Role::Admin, Timestamp::now()), keys("another cluster's"), Timestamp::now());
    let (signed, signature) = ours.rsplit_once('.').expect("three parts");
    let claims = signed.split_once('.').expect("two parts").1;
    let forged = [format!("{NO_ALGORITHM}.{claims}."), format!("{NO_ALGORITHM}.{claims}.{signature}"), format!("{signed}.")];
    let foreign = [other.mint(&Role::Admin, now), other.mint(&Role::Node(name("n1")), now)];
    let garbage = [String::new(), "x".to_owned(), "a.b.c".to_owned(), TOKEN[1..].to_owned(), "x".repeat(20_000)];
    [None].into_iter().chain(forged.into_iter().chain(foreign).chain(garbage).map(Some)).collect()
}

/// The answer to HEAD has no body to read a code from.
async fn denied(asked: &str, what: &str, answer: Response, code: ErrorCode) {
    if asked == "HEAD" {
        assert_eq!(answer.status(), code.status(), "HEAD {what}");
    } else {
        assert_eq!(refusal(answer).await.code, code, "{asked} {what}");
    }
}

#[test]
fn the_table_here_has_every_route_there_is() {
    let source = include_str!("../../../../../cube-api/src/routes.rs");
    let leaders = source.split("pub mod node").next().expect("a first part");
    let declared = |line: &str| Some(line.strip_prefix("pub const ")?.split_once(": &str = \"")?.1.strip_suffix("\";")?.to_owned());
    let mut declared: Vec<String> = leaders.lines().filter_map(declared).collect();
    // Those that stand behind the node's own module.
    declared.extend([routes::EVENTS, routes::SESSION].map(str::to_owned));
    declared.sort();
    declared.dedup();
    let mut tested: Vec<String> = ROUTES.iter().map(|(path, _)| (*path).to_owned()).collect();
    tested.sort();
    assert_eq!(tested, declared);
}

#[test]
fn the_table_of_actions_has_exactly_the_guarded_routes_and_methods() {
    for (route, methods) in ROUTES {
        for asked in METHODS {
            let wanted = methods.iter().find(|(method, _)| method == asked).and_then(|(_, action)| *action);
            assert_eq!(action(&method(asked), route), wanted, "{asked} {route}");
        }
    }
    assert_eq!(action(&Method::GET, "/v1/nothing"), None);
}

#[test]
fn each_role_may_do_its_own_and_nothing_else() {
    let every = [None, Some(Action::Read), Some(Action::Change), Some(Action::Exec), Some(Action::BeNode)];
    let may = |role: &Role| every.map(|action| allows(role, action));
    assert_eq!(may(&Role::Admin), [true, true, true, true, false]);
    assert_eq!(may(&Role::Read), [false, true, false, false, false]);
    assert_eq!(may(&Role::Node(name("n1"))), [false, false, false, false, true]);
}

#[tokio::test]
async fn nobody_gets_in_anywhere_without_the_clusters_credential() {
    let leader = Leader::start().await;
    let guarded = ROUTES.iter().map(|(route, _)| *route).filter(|route| !is_open(route));
    let unknown = ["/", "/v1", "/v1/nothing", "/v1/pods/", "//v1/pods", "/v1/pods/x/y/z", "/V1/pods", "/healthz/"];
    for path in guarded.map(filled_in).chain(unknown.map(str::to_owned)) {
        for asked in METHODS {
            for stranger in strangers() {
                let answer = leader.send(method(asked), &path, stranger.as_deref(), untouched()).await;
                denied(asked, &format!("{path} with {stranger:?}"), answer, ErrorCode::Unauthenticated).await;
            }
        }
    }
}

#[tokio::test]
async fn a_credential_anywhere_but_behind_bearer_is_none() {
    let leader = Leader::start().await;
    let admin = leader.credential(&Role::Admin);
    let headers = [
        (header::AUTHORIZATION.as_str(), admin.clone()),
        (header::AUTHORIZATION.as_str(), format!("Basic {admin}")),
        (header::AUTHORIZATION.as_str(), format!("bearer {admin}")),
        (header::COOKIE.as_str(), format!("authorization=Bearer {admin}")),
        ("x-authorization", format!("Bearer {admin}")),
    ];
    for (header, value) in headers {
        let request = Request::get(format!("/v1/pods?access_token={admin}")).header(header, value).body(Body::empty()).expect("a request");
        let answer = TowerToHyperService::new(router(leader.api.clone())).call(request).await.expect("a router doesn't fail");
        assert_eq!(refusal(answer).await.code, ErrorCode::Unauthenticated, "{header}");
    }
}

#[tokio::test]
async fn a_reader_looks_and_a_node_reports_and_neither_does_more() {
    let leader = Leader::start().await;
    for role in [Role::Read, Role::Node(name("n1"))] {
        let credential = leader.credential(&role);
        for (route, methods) in ROUTES.iter().filter(|(route, _)| !is_open(route)) {
            for asked in METHODS {
                let does = methods.iter().find(|(method, _)| method == asked).and_then(|(_, action)| *action);
                if does.is_some() && allows(&role, does) {
                    continue;
                }
                let answer = leader.send(method(asked), &filled_in(route), Some(&credential), untouched()).await;
                denied(asked, &format!("{route} as {role:?}"), answer, ErrorCode::Forbidden).await;
            }
        }
    }
    for path in ["/v1/pods", "/v1/nodes", "/v1/events"] {
        let answer = leader.send(Method::GET, path, Some(&leader.credential(&Role::Read)), Body::empty()).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn an_admin_is_no_node() {
    let leader = Leader::start().await;
    for credential in [leader.credential(&Role::Admin), TOKEN.to_owned()] {
        for path in ["/v1/session", "/v1/nodes/n1/report"] {
            let answer = leader.send(Method::POST, path, Some(&credential), untouched()).await;
            refused(answer, ErrorCode::Forbidden).await;
        }
    }
}

#[tokio::test]
async fn a_node_speaks_for_no_other_node() {
    let leader = Leader::start().await;
    let credential = leader.credential(&Role::Node(name("n2")));
    let id = "00000000-0000-0000-0000-000000000001";
    let facts = json!({"version": "0.1.0", "engine": "20.10", "capacity": {"cpu": "4", "memory": "4Gi", "pods": 100}});
    let report = json!({"nodeId": id, "clusterId": id, "facts": facts}).to_string();
    let answer = leader.send(Method::POST, "/v1/nodes/n1/report", Some(&credential), report.into()).await;
    let error = refused(answer, ErrorCode::Forbidden).await;
    assert!(error.message.contains("n1") && error.message.contains("n2"), "{}", error.message);
    assert!(leader.api.store.read(|state| state.nodes.is_empty()));
}

#[tokio::test]
async fn what_is_not_there_is_told_to_an_admin_in_json() {
    let leader = Leader::start().await;
    for path in ["/", "/v1/nothing", "/v1/pods/", "/v1/pods/x/nothing"] {
        for asked in METHODS {
            let answer = leader.as_admin(method(asked), path, untouched()).await;
            denied(asked, path, answer, ErrorCode::NoRoute).await;
        }
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_with_those_that_are_right() {
    let leader = Leader::start().await;
    for (route, methods) in ROUTES {
        let served: Vec<&str> = methods.iter().map(|(method, _)| *method).collect();
        let is_served = |asked: &str| served.contains(&asked) || asked == "HEAD" && served.contains(&"GET");
        for asked in METHODS.iter().filter(|asked| !is_served(asked)) {
            let answer = leader.as_admin(method(asked), &filled_in(route), untouched()).await;
            let allow = answer.headers().get(header::ALLOW).map(|value| value.to_str().expect("ASCII").to_owned());
            let allow = allow.unwrap_or_else(|| panic!("{asked} {route} says not what is allowed"));
            assert!(served.iter().all(|method| allow.split(',').any(|allowed| allowed == *method)), "{asked} {route}: {allow}");
            denied(asked, route, answer, ErrorCode::WrongMethod).await;
        }
    }
}

#[tokio::test]
async fn an_expired_credential_is_told_the_leaders_clock() {
    let leader = Leader::start().await;
    let credential = leader.credential(&Role::Admin);
    leader.ahead.store(3_600, Ordering::Relaxed);
    let error = refused(leader.send(Method::GET, "/v1/pods", Some(&credential), untouched()).await, ErrorCode::CredentialExpired).await;
    let told = error.server_time.expect("the leader's clock");
    let again = leader.api.keys.mint(&Role::Admin, told);
    assert_eq!(leader.send(Method::GET, "/v1/pods", Some(&again), Body::empty()).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn health_and_version_need_no_credential_and_tell_nothing_else() {
    let leader = Leader::start().await;
    for (path, wanted) in [("/healthz", "ok".to_owned()), ("/readyz", "ok".to_owned()), ("/version", version())] {
        let answer = leader.send(Method::GET, path, None, untouched()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(whole(answer).await, wanted);
    }
}

fn version() -> String {
    json!({"version": env!("CARGO_PKG_VERSION")}).to_string()
}

#[tokio::test]
async fn a_connection_is_a_nodes_once_it_has_shown_a_nodes_credential_and_no_one_elses_is() {
    let leader = Leader::start().await;
    let report = filled_in(routes::NODE_REPORT);
    let node = leader.credential(&Role::Node(name("n1")));
    let known = [
        (routes::PODS, Method::GET, Some(leader.credential(&Role::Admin)), false),
        (routes::PODS, Method::GET, Some(node.clone()), false),
        (&report, Method::POST, None, false),
        (&report, Method::POST, Some("x".to_owned()), false),
        (&report, Method::POST, Some(node), true),
    ];
    for (path, method, credential, expected) in known {
        let connection = Connection::of_a_stranger();
        let mut request = Request::builder().method(&method).uri(path).extension(connection.clone());
        if let Some(credential) = &credential {
            request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
        }
        let request = request.body(Body::empty()).expect("a request");
        TowerToHyperService::new(router(leader.api.clone())).call(request).await.expect("a router doesn't fail");
        assert_eq!(connection.counts_as_a_nodes(), expected, "{method} {path} with {credential:?}");
    }
}
