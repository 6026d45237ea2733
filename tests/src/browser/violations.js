// Runs in a world of its own: the page neither sees it nor can stop it.
document.addEventListener("securitypolicyviolation", (event) => {
  const { effectiveDirective, blockedURI, sourceFile, lineNumber, sample } = event;
  BINDING(`event: ${effectiveDirective} forbids ${blockedURI} at ${sourceFile}:${lineNumber} ${sample}`);
});
