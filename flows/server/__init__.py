"""What `lntx up` starts and watches: a hardened Prefect server, its deployments, alerts and clean-up."""
