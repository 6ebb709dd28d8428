//! The ports on which gateways listen in their containers.

use super::{Resource, Setup, workload};
use crate::cli::files::Located;

/// What the Services of a workload tell.
pub(super) struct Served {
    /// The ports in the container.
    container: Vec<u16>,
    /// The Services' own.
    services: Vec<u16>,
}

impl Setup<'_> {
    /// The ports on which the plugin's workloads listen, as their Services and Istio's Gateways tell. None if that
    /// can't be told: a workload without a Service, or no workload.
    pub(in crate::cli) fn container_ports(&self, holder: &Resource) -> Option<Vec<u16>> {
        let reach = self.reach(holder);
        let mut ports = Vec::new();
        let mut served = Vec::new();
        for (_, workload) in self.workloads_of(&reach) {
            let of_workload = workload.served.get_or_init(|| self.served(workload));
            let of_workload = of_workload.as_ref()?;
            ports.extend(&of_workload.container);
            served.extend(&of_workload.services);
        }
        for list in [&mut ports, &mut served] {
            list.sort_unstable();
            list.dedup();
        }
        // A server whose port no Service has listens on its own.
        let servers = self.server_ports.get_or_init(|| self.all_server_ports());
        ports.extend(
            servers
                .iter()
                .copied()
                .filter(|port| !served.contains(port)),
        );
        (!served.is_empty()).then_some(ports)
    }

    /// What the Services in front of a workload tell. None if there are none, or one can't be understood.
    fn served(&self, workload: &workload::Workload<'_>) -> Option<Served> {
        let mut container = Vec::new();
        let mut services = Vec::new();
        let mut has_service = false;
        for service in self
            .of_kind("Service")
            .filter(|service| workload.is_behind(service))
        {
            has_service = true;
            for port in service.items(&["spec", "ports"]) {
                services.extend(port.get("port").and_then(workload::as_port));
                let target = port.get("targetPort").or_else(|| port.get("port"))?;
                let number = match target.text() {
                    Some(name) => workload.port(name).or_else(|| name.parse().ok()),
                    None => workload::as_port(target),
                };
                container.push(number?);
            }
        }
        has_service.then_some(Served {
            container,
            services,
        })
    }

    /// The ports of the servers of Istio's Gateways.
    fn all_server_ports(&self) -> Vec<u16> {
        let servers = self
            .of_kind("Gateway")
            .flat_map(|gateway| gateway.items(&["spec", "servers"]));
        let port = |server: &Located| server.at(&["port", "number"]).and_then(workload::as_port);
        let mut ports: Vec<u16> = servers.filter_map(port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}
