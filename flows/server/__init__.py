"""What `lntx up` starts and supervises: a hardened Prefect server, its deployments, alerts and cleanup."""
