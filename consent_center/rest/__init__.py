"""The consent center over HTTP: `app.create_app` serves one, `remote.open_remote` uses one from elsewhere.

The service answers on 127.0.0.1 only; whoever needs it from another machine puts a TLS proxy in front. Every
call but the health check and the documentation needs the bearer token that lies in the center's directory.
"""
