"""HTTP server of the API and the page. Reads SQL, and acts through the functions that the commands use."""
