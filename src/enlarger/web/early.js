// Before anything is drawn: the colours that were chosen last, so that the page does not flash in others.
{
  const theme = localStorage.getItem("enlarger-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}
