//! The Grafana dashboards, as data. `kcp-deploy dashboards` writes them; a test holds the committed files to this.

mod panels;

use serde_json::{Value, json};

pub use panels::ALL;

/// One dashboard.
#[derive(Debug)]
pub struct Dashboard {
    /// The file's name, and the end of its uid.
    pub name: &'static str,
    title: &'static str,
    rows: &'static [(&'static str, &'static [Panel])],
}

/// One graph.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// What to read from it.
    help: &'static str,
    /// Expression and legend.
    pub(crate) queries: &'static [(&'static str, &'static str)],
}

/// A query with the dashboard and panel that ask it.
#[derive(Clone, Debug)]
pub struct Query {
    /// `dashboard / panel`.
    pub place: String,
    /// PromQL, with Grafana's variables.
    pub expr: &'static str,
}

impl Dashboard {
    fn to_json(&self) -> Value {
        let (mut panels, mut y) = (Vec::new(), 0);
        for (title, row) in self.rows {
            let at = json!({ "x": 0, "y": y, "w": GRID, "h": 1 });
            panels.push(json!({
                "id": panels.len() + 1, "type": "row", "title": title, "collapsed": false, "gridPos": at, "panels": [],
            }));
            y += 1;
            for (i, panel) in row.iter().enumerate() {
                let column = i % COLUMNS;
                let at = json!({ "x": column * GRID / COLUMNS, "y": y, "w": GRID / COLUMNS, "h": HEIGHT });
                panels.push(panel.to_json(panels.len() + 1, &at));
                if column + 1 == COLUMNS || i + 1 == row.len() {
                    y += HEIGHT;
                }
            }
        }
        let prometheus = json!({
            "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus",
        });
        let instance = json!({
            "name": "instance", "label": "Gateway", "type": "query", "datasource": datasource(),
            "query": { "query": "label_values(kcp_gateway_build_info, instance)", "refId": "instance" },
            "multi": true, "includeAll": true, "allValue": ".*", "refresh": 2, "sort": 1,
        });
        json!({
            "uid": format!("kcp-gateway-{}", self.name),
            "title": self.title,
            "tags": ["kcp-gateway"],
            "schemaVersion": SCHEMA,
            "editable": false,
            "graphTooltip": 1,
            "refresh": "15s",
            "time": { "from": "now-1h", "to": "now" },
            "links": [{
                "type": "dashboards", "tags": ["kcp-gateway"], "title": "Gateway", "asDropdown": true,
                "keepTime": true, "includeVars": true,
            }],
            "templating": { "list": [prometheus, instance] },
            "annotations": { "list": [{
                "name": "Starts and alerts", "enable": true, "datasource": datasource(), "iconColor": "red",
                "expr": "ALERTS{alertstate=\"firing\", alertname=~\"KcpGateway.*\"}", "titleFormat": "{{alertname}} {{instance}}",
            }]},
            "panels": panels,
        })
    }

    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{:#}\n", self.to_json())
    }

    /// Its graphs, in order.
    pub(crate) fn panels(&self) -> impl Iterator<Item = &'static Panel> {
        self.rows.iter().flat_map(|(_, panels)| *panels)
    }

    /// Everything it asks Prometheus.
    pub fn queries(&self) -> impl Iterator<Item = Query> {
        self.panels().flat_map(|panel| {
            let place = format!("{} / {}", self.title, panel.title);
            panel.queries.iter().map(move |(expr, _)| Query { place: place.clone(), expr })
        })
    }
}

impl Panel {
    fn to_json(self, id: usize, at: &Value) -> Value {
        let target = |(i, (expr, legend)): (usize, &(&str, &str))| json!({ "refId": format!("Q{i}"), "datasource": datasource(), "expr": expr, "legendFormat": legend });
        let targets: Vec<_> = self.queries.iter().enumerate().map(target).collect();
        json!({
            "id": id,
            "type": "timeseries",
            "title": self.title,
            "description": self.help,
            "datasource": datasource(),
            "gridPos": at,
            "targets": targets,
            "fieldConfig": {
                "defaults": { "unit": self.unit, "min": 0, "custom": { "fillOpacity": 10, "showPoints": "never" } },
                "overrides": [],
            },
            "options": {
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true },
                "tooltip": { "mode": "multi", "sort": "desc" },
            },
        })
    }
}

const GRID: usize = 24;
const COLUMNS: usize = 3;
const HEIGHT: usize = 8;
/// Grafana 11's; newer ones migrate it on load.
const SCHEMA: u32 = 39;
fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}
