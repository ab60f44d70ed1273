"""People and machines that may use the service: accounts, second factors, sessions, API tokens, OIDC."""
