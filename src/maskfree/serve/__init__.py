"""A local web server: a page in the browser, an HTTP API, and a backend for annotation tools."""
