//! What a Jaeger tells of traces, by the API that its own pages use.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::GIVE_UP;

/// A span as Jaeger's API shows it.
#[derive(Debug, Clone)]
pub struct JaegerSpan {
    /// The trace it belongs to.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The service that sent it.
    pub service: String,
    /// Its parent, if it has one; see also [`JaegerApi::parent`].
    pub parent: Option<String>,
    /// What it links to: trace and span.
    pub links: Vec<(String, String)>,
    /// Its attributes, kind and status among them.
    pub tags: BTreeMap<String, Value>,
    /// The attributes of its resource.
    pub resource: BTreeMap<String, Value>,
}

impl JaegerSpan {
    /// An attribute as text; empty if it is not there.
    #[must_use]
    pub fn tag(&self, name: &str) -> String {
        self.tags.get(name).map(as_text).unwrap_or_default()
    }

    /// The same of an attribute of the resource.
    #[must_use]
    pub fn resource(&self, name: &str) -> String {
        self.resource.get(name).map(as_text).unwrap_or_default()
    }
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct JaegerApi {
    query: SocketAddr,
}

impl JaegerApi {
    /// Of the Jaeger that answers here.
    #[must_use]
    pub fn at(query: SocketAddr) -> Self {
        Self { query }
    }

    /// The spans of this service with all these attributes, of the last hour.
    ///
    /// # Panics
    ///
    /// When the API does not answer.
    pub async fn find(&self, service: &str, tags: &[(&str, &str)]) -> Vec<JaegerSpan> {
        let tags: BTreeMap<_, _> = tags.iter().copied().collect();
        let tags_json = serde_json::to_string(&tags).expect("text is JSON");
        let path = format!(
            "/api/traces?service={}&tags={}&limit=1000&lookback=1h",
            crate::http::encoded(service),
            crate::http::encoded(&tags_json)
        );
        let spans = spans(&self.ask(&path).await);
        let wanted = |span: &JaegerSpan| {
            span.service == service && tags.iter().all(|(name, value)| span.tag(name) == *value)
        };
        spans.into_iter().filter(wanted).collect()
    }

    /// All spans of one trace.
    ///
    /// # Panics
    ///
    /// When the API does not answer.
    pub async fn trace(&self, id: &str) -> Vec<JaegerSpan> {
        spans(&self.ask(&format!("/api/traces/{id}")).await)
    }

    /// The parent of this span as it was sent, in hexadecimal digits; empty if it has none.
    ///
    /// # Panics
    ///
    /// When the API does not answer, or there is no such span.
    pub async fn parent(&self, span: &JaegerSpan) -> String {
        let answer = self.ask(&format!("/api/v3/traces/{}", span.trace)).await;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let resources = list(&answer["result"]["resourceSpans"]);
        let scopes = resources.iter().flat_map(|resource| list(&resource["scopeSpans"]));
        let mut spans = scopes.flat_map(|scope| list(&scope["spans"]));
        let sent = spans.find(|sent| sent["spanId"] == span.id.as_str());
        let sent = sent.unwrap_or_else(|| panic!("no span {} in {answer}", span.id));
        sent["parentSpanId"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the spans of this service with these attributes are as wanted, and gives them.
    ///
    /// # Panics
    ///
    /// When they never are, with the last ones.
    pub async fn until(
        &self,
        service: &str,
        tags: &[(&str, &str)],
        wanted: impl Fn(&[JaegerSpan]) -> bool,
    ) -> Vec<JaegerSpan> {
        let begun = Instant::now();
        loop {
            let found = self.find(service, tags).await;
            if wanted(&found) {
                return found;
            }
            assert!(begun.elapsed() < GIVE_UP, "gave up waiting for {tags:?}: {found:#?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Waits for the one span of this service with this name and these attributes.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub async fn one(&self, service: &str, name: &str, tags: &[(&str, &str)]) -> JaegerSpan {
        let is_it = |span: &&JaegerSpan| span.name == name;
        let found = self.until(service, tags, |found| found.iter().any(|span| is_it(&span))).await;
        found.iter().find(is_it).cloned().expect("it was found")
    }

    /// Waits until this service calls that one in the service graph.
    ///
    /// # Panics
    ///
    /// When it never does.
    pub async fn edge(&self, caller: &str, called: &str) {
        let begun = Instant::now();
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
            let path = format!("/api/dependencies?endTs={}&lookback=3600000", now + 1000);
            let answer = self.ask(&path).await;
            let edges = answer["data"].as_array().cloned().unwrap_or_default();
            if edges.iter().any(|edge| edge["parent"] == caller && edge["child"] == called) {
                return;
            }
            assert!(begun.elapsed() < GIVE_UP, "no edge from {caller} to {called}: {edges:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    async fn ask(&self, path: &str) -> Value {
        // In HTTP/1.0, because a longer answer would come in chunks otherwise.
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let answer = crate::http::request(self.query, request.as_bytes()).await;
        serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("no JSON: {}", answer.body))
    }
}

fn spans(answer: &Value) -> Vec<JaegerSpan> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let tags = |value: &Value| {
        list(value)
            .into_iter()
            .filter_map(|tag| Some((tag["key"].as_str()?.to_owned(), tag["value"].clone())))
            .collect::<BTreeMap<_, _>>()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for trace in list(&answer["data"]) {
        for span in list(&trace["spans"]) {
            let process = &trace["processes"][text(&span["processID"])];
            let references = list(&span["references"]);
            let of_kind = |kind: &str| {
                let those = references.iter().filter(|reference| reference["refType"] == kind);
                those
                    .map(|reference| (text(&reference["traceID"]), text(&reference["spanID"])))
                    .collect::<Vec<_>>()
            };
            let trace = text(&span["traceID"]);
            // A parent that is linked to as well is shown as a link alone, and taken for the parent.
            let parent = of_kind("CHILD_OF").into_iter().chain(of_kind("FOLLOWS_FROM"));
            let parent =
                parent.filter(|(other, _)| *other == trace).map(|(_, parent)| parent).next();
            all.push(JaegerSpan {
                trace,
                id: text(&span["spanID"]),
                name: text(&span["operationName"]),
                service: text(&process["serviceName"]),
                parent,
                links: of_kind("FOLLOWS_FROM"),
                tags: tags(&span["tags"]),
                resource: tags(&process["tags"]),
            });
        }
    }
    all
}
